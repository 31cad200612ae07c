"""Fast kernels for generation on a CPU: products of a few rows with large matrices, and attention to a cache.

Generating a token reads all weights and computes little, and XLA's matrix products reach only half of the
memory bandwidth. `cpu_decoding.cc` is compiled once on each machine that has a C++ compiler and kept in
`paths.cache_dir()`. Without a compiler, XLA does everything.
"""

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning, paths

_SOURCE = pathlib.Path(__file__).with_name('cpu_decoding.cc')
# The packed product pays off from 2 to 32 rows (XLA is as fast for one), and from this size of the matrix.
_MAX_ROWS, _MIN_ENTRIES = 32, 1 << 16
_packing: contextvars.ContextVar[bool] = contextvars.ContextVar('packing', default=False)


@contextlib.contextmanager
def packed_matrices(enabled: bool = True) -> Iterator[None]:
    """Pack matrices for the loops traced in this context: copy each matrix into panels once, before the loop.

    A panel is a block of adjacent columns. The copies need as much memory as the matrices.
    """
    token = _packing.set(enabled)
    try:
        yield
    finally:
        _packing.reset(token)


def matmul(
    x: jax.Array, w: jax.Array, transposed: bool = False, dtype: jnp.dtype | type | None = None
) -> jax.Array:
    """Compute x @ w, or x @ w.T if `transposed`.

    Args:
      x: [..., K] array.
      w: [K, N] matrix, or [N, K] if `transposed`.
      transposed: whether to transpose `w`.
      dtype: type of the result; None uses that of the inputs.

    Returns:
      [..., N] array.
    """
    num_rows = (
        x.shape[0] if x.ndim == 2 and isinstance(x.shape[0], int) else 0
    )  # 0 if unknown, as in `jax.export`
    has_few_rows = 1 < num_rows <= _MAX_ROWS
    supported = has_few_rows and w.size >= _MIN_ENTRIES and x.dtype == w.dtype == jnp.float32
    if _packing.get() and supported and (width := _panel_width(w.shape[0 if transposed else 1])):
        return _packed_matmul(x, w, transposed, width).astype(dtype or jnp.float32)
    if transposed and 1 <= num_rows <= 64 and partitioning.target_platform() == 'cpu':
        # XLA for CPUs reads the matrix faster, in order, if it is the first operand. The barrier keeps XLA
        # from swapping the operands back.
        return jax.lax.optimization_barrier(jnp.matmul(w, x.T, preferred_element_type=dtype)).T
    return jnp.matmul(x, w.T if transposed else w, preferred_element_type=dtype)


def _packed_matmul(x: jax.Array, w: jax.Array, transposed: bool, width: int) -> jax.Array:
    """Compute `matmul` from a copy of `w` in panels.

    Inside a loop, the copy is loop-invariant, so XLA moves it out of the loop.
    """
    k, n = w.shape[::-1] if transposed else w.shape
    panels = _ffi_call('pack_panels', (n // width, k, width))(w, transposed=transposed)
    return _ffi_call('packed_matmul', (len(x), n))(x, panels)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array | None:
    """Compute `attention.attend` for one query per head, without reading cache slots after the last visible one.

    Each row must see at least one slot. There is no gradient.

    Returns:
      [B, N, 1, H]; or None for cases that XLA has to compute: other devices, several queries, an additive
      mask, or half precision.
    """
    is_single_query = q.shape[2] == 1 and mask.dtype == bool and mask.shape[1] == 1
    if not (is_single_query and q.dtype == k.dtype == jnp.float32 and _available_panel_width()):
        return None
    visible = jnp.broadcast_to(mask[:, 0, 0], (len(q), k.shape[2]))
    return _ffi_call('decode_attention', q.shape)(q, k, v, visible)


def _ffi_call(name: str, shape: tuple[int, ...]) -> Any:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(f'bert_jax_{name}', result, vmap_method='sequential')


def _panel_width(n: int) -> int:
    """Return the largest supported panel width that divides n columns; 0 if XLA has to compute the product."""
    return next((w for w in (48, 32, 16) if w <= _available_panel_width() and n % w == 0), 0)


def _available_panel_width() -> int:
    """Return the largest panel width; 0 if the library or the current device does not support panels."""
    return _max_panel_width() if partitioning.is_single_cpu() else 0


@functools.cache
def _max_panel_width() -> int:
    """Load the library, compile it if needed, and return the largest number of columns of a panel; 0 on failure.

    Only a file whose content has the hash in its name is loaded: a damaged library could compute or do anything.
    """
    folder, name = paths.cache_dir(), f'cpu_decoding-{_fingerprint()}'
    try:
        file = _find(folder, name) or _compile(folder, name)
        if file is None:
            return 0
        library = ctypes.CDLL(str(file))
        for function in ('packed_matmul', 'pack_panels', 'decode_attention'):
            handler = jax.ffi.pycapsule(getattr(library, function))
            jax.ffi.register_ffi_target(f'bert_jax_{function}', handler, platform='cpu')
    except (OSError, AttributeError, subprocess.CalledProcessError) as e:
        reason = e.stderr if isinstance(e, subprocess.CalledProcessError) else str(e)
        logging.warning('cpu_decoding.cc cannot be used, so generation is slower: %s', reason[:200])
        return 0
    return ctypes.c_int.in_dll(library, 'max_panel_width').value


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Find the compiled library, and remove damaged ones; None if there is none."""
    for file in folder.glob(f'{name}-*.so'):
        if file.stem == f'{name}-{_hash(file)}':
            return file
        file.unlink(missing_ok=True)
    return None


def _compile(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Compile the library and return its file, in whose name the hash of its content follows `name`; None without a compiler.

    It is written to a temporary folder and moved, so that no process loads a partial file.
    """
    compiler = shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        output = pathlib.Path(temporary) / name
        flags = ['-O3', '-march=native', '-std=c++17', '-shared', '-fPIC', '-w', f'-I{jax.ffi.include_dir()}']
        subprocess.run(
            [compiler, *flags, str(_SOURCE), '-o', str(output)], check=True, capture_output=True, text=True
        )
        with output.open('rb') as opened:
            os.fsync(opened.fileno())
        return output.replace(folder / f'{name}-{_hash(output)}.so')


def _hash(file: pathlib.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _fingerprint() -> str:
    """Hash the source, the JAX version and the processor, on which the compiled library depends."""
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    cpu = sorted({line for line in lines if line.startswith(('flags', 'Features', 'model name'))}) or lines
    return hashlib.sha256('\n'.join([_SOURCE.read_text(), jax.__version__, *cpu]).encode()).hexdigest()[:16]
