"""What generating a token is made of, on a CPU: products of a few rows with large matrices, and attention to a cache.

A token reads all weights and does little else, and XLA's products read them at half the speed of memory. `cpu_decoding.cc` is
built once on each machine that has a C++ compiler, and kept in `paths.cache_dir()`; elsewhere everything is XLA's.
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
# Rows at most, and entries of the matrix at least, for which it is worth while; for one row XLA is as fast.
_ROWS, _ENTRIES = 32, 1 << 16
_often: contextvars.ContextVar[bool] = contextvars.ContextVar('often', default=False)


@contextlib.contextmanager
def matrices_read_often(often: bool = True) -> Iterator[None]:
    """Around a loop while it is traced: its matrices are laid out for reading before it begins, which takes their size in memory."""
    token = _often.set(often)
    try:
        yield
    finally:
        _often.reset(token)


def product(
    x: jax.Array, w: jax.Array, transposed: bool = False, dtype: jnp.dtype | type | None = None
) -> jax.Array:
    """x @ w, or x @ w.T if it is transposed, in `dtype`: [..., K] and [K, N] (or [N, K]) to [..., N]."""
    few = x.ndim == 2 and 1 < len(x) <= _ROWS and w.size >= _ENTRIES and x.dtype == w.dtype == jnp.float32
    if _often.get() and few and (strip := _strip(w.shape[0 if transposed else 1])):
        return _few_rows(x, w, transposed, strip).astype(dtype or jnp.float32)
    if transposed and x.ndim == 2 and len(x) <= 64:
        # With the matrix first XLA reads it faster on a CPU, in order; without the barrier it takes the rows first.
        return jax.lax.optimization_barrier(jnp.matmul(w, x.T, preferred_element_type=dtype)).T
    return jnp.matmul(x, w.T if transposed else w, preferred_element_type=dtype)


def _few_rows(x: jax.Array, w: jax.Array, transposed: bool, strip: int) -> jax.Array:
    """x @ w from strips of the matrix; XLA takes the making of these, which never changes, out of the loop."""
    k, n = w.shape[::-1] if transposed else w.shape
    strips = _call('strips', (n // strip, k, strip))(w, transposed=transposed)
    return _call('few_rows', (len(x), n))(x, strips)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array | None:
    """`attention.attend` of one query a head, [B, N, 1, H], to a cache, of which only what is seen is read.

    None if XLA has to do it: elsewhere than on one CPU, for several queries, for scores that are added to, or in half precision.
    Each row sees a slot or more. It has no gradient.
    """
    one = q.shape[2] == 1 and q.dtype == k.dtype == jnp.float32 and mask.dtype == bool and mask.shape[1] == 1
    if not (one and _widest()):
        return None
    seen = jnp.broadcast_to(mask[:, 0, 0], (len(q), k.shape[2]))
    return _call('attention', q.shape)(q, k, v, seen)


def _call(name: str, shape: tuple[int, ...]) -> Any:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(f'bert_jax_{name}', result, vmap_method='sequential')


def _strip(n: int) -> int:
    """How wide the strips of n columns are: as wide as suits the processor, of what divides them; 0 if XLA has to do it."""
    return next((strip for strip in (48, 32, 16) if strip <= _widest() and n % strip == 0), 0)


def _widest() -> int:
    """Columns of a strip at most; 0 where the library cannot be used."""
    return _widest_strip() if partitioning.on_one_cpu() else 0


@functools.cache
def _widest_strip() -> int:
    """Of the library, which is built if need be; 0 if it cannot be used."""
    file = paths.cache_dir() / f'few_rows-{_fingerprint()}.so'
    try:
        if not file.exists():
            compiler = shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')
            if compiler is None:
                return 0
            _build(compiler, file)
        library = ctypes.CDLL(str(file))
        handlers = {name: getattr(library, name) for name in ('few_rows', 'strips', 'attention')}
    except (OSError, AttributeError, subprocess.CalledProcessError) as e:
        said = e.stderr if isinstance(e, subprocess.CalledProcessError) else str(e)
        logging.warning('cpu_decoding.cc cannot be used, generation is slower: %s', said[:200])
        with contextlib.suppress(OSError):  # damaged, perhaps: made anew the next time
            file.unlink()
        return 0
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(f'bert_jax_{name}', jax.ffi.pycapsule(handler), platform='cpu')
    return ctypes.c_int.in_dll(library, 'widest_strip').value


def _build(compiler: str, file: pathlib.Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # others may build it too
        made = pathlib.Path(folder) / file.name
        flags = ['-O3', '-march=native', '-std=c++17', '-shared', '-fPIC', '-w', f'-I{jax.ffi.include_dir()}']
        subprocess.run(
            [compiler, *flags, str(_SOURCE), '-o', str(made)], check=True, capture_output=True, text=True
        )
        with made.open('rb') as written:
            os.fsync(written.fileno())
        made.replace(file)


def _fingerprint() -> str:
    """Of what the library is made from and for."""
    about = pathlib.Path('/proc/cpuinfo')
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(('flags', 'Features', 'model name'))}) or lines
    return hashlib.sha256('\n'.join([_SOURCE.read_text(), jax.__version__, *kind]).encode()).hexdigest()[:16]
