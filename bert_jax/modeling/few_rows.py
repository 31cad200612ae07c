"""Products of a few rows with a large matrix on a CPU: generation reads all weights for each token, and does little else.

XLA's products read them at half the speed of memory. `few_rows.cc` is built once on each machine that has a C++ compiler,
and kept in `paths.cache_dir()`; elsewhere everything is XLA's. Training meets it where a batch has few rows, as in a pooler.
"""

import ctypes
import functools
import hashlib
import logging
import pathlib
import platform
import shutil
import subprocess
import tempfile

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning, paths

_SOURCE = pathlib.Path(__file__).with_name('few_rows.cc')
# Rows at most, and entries of the matrix at least, for which it is worth while; for one row XLA is as fast.
_ROWS, _ENTRIES = 32, 1 << 16


def product(
    x: jax.Array, w: jax.Array, transposed: bool = False, dtype: jnp.dtype | type | None = None
) -> jax.Array:
    """x @ w, or x @ w.T if it is transposed, in `dtype`: [..., K] and [K, N] (or [N, K]) to [..., N]."""
    few = x.ndim == 2 and 1 < len(x) <= _ROWS and w.size >= _ENTRIES and x.dtype == w.dtype == jnp.float32
    if few and partitioning.on_one_cpu() and _ready():
        return _few_rows(x, w, transposed).astype(dtype or jnp.float32)
    if transposed and x.ndim == 2 and len(x) <= 64:
        # With the matrix first XLA reads it faster on a CPU, in order; without the barrier it takes the rows first.
        return jax.lax.optimization_barrier(jnp.matmul(w, x.T, preferred_element_type=dtype)).T
    return jnp.matmul(x, w.T if transposed else w, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _few_rows(x: jax.Array, w: jax.Array, transposed: bool) -> jax.Array:
    n = w.shape[0 if transposed else 1]
    shape = jax.ShapeDtypeStruct((len(x), n), jnp.float32)
    call = jax.ffi.ffi_call('bert_jax_few_rows', shape, vmap_method='sequential')
    return call(x, w, transposed=transposed)


def _forward(x: jax.Array, w: jax.Array, transposed: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _few_rows(x, w, transposed), (x, w)


def _backward(
    transposed: bool, kept: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = kept
    return (dy @ w, dy.T @ x) if transposed else (dy @ w.T, x.T @ dy)


_few_rows.defvjp(_forward, _backward)


@functools.cache
def _ready() -> bool:
    """Whether the library is there, after it was built if need be."""
    file = paths.cache_dir() / f'few_rows-{_fingerprint()}.so'
    try:
        if not file.exists():
            compiler = shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')
            if compiler is None:
                return False
            _build(compiler, file)
        handler = ctypes.CDLL(str(file)).FewRowsHandler
    except (OSError, AttributeError, subprocess.CalledProcessError) as e:
        said = e.stderr if isinstance(e, subprocess.CalledProcessError) else str(e)
        logging.warning('few_rows.cc cannot be used, generation is slower: %s', said[:200])
        return False
    jax.ffi.register_ffi_target('bert_jax_few_rows', jax.ffi.pycapsule(handler), platform='cpu')
    return True


def _build(compiler: str, file: pathlib.Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # others may build it too
        made = pathlib.Path(folder) / file.name
        flags = ['-O3', '-march=native', '-std=c++17', '-shared', '-fPIC', '-w', f'-I{jax.ffi.include_dir()}']
        subprocess.run(
            [compiler, *flags, str(_SOURCE), '-o', str(made)], check=True, capture_output=True, text=True
        )
        made.replace(file)


def _fingerprint() -> str:
    """Of what the library is made from and for."""
    about = pathlib.Path('/proc/cpuinfo')
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(('flags', 'Features', 'model name'))}) or lines
    return hashlib.sha256('\n'.join([_SOURCE.read_text(), jax.__version__, *kind]).encode()).hexdigest()[:16]
