"""What this machine is: compilation cache, peak speed."""

import ctypes
import functools
import logging
import os
import time

import jax
import jax.numpy as jnp

from bert_jax.core import chips
from bert_jax.core.paths import cache_dir


def prepare_process() -> None:
    """What every door does before it computes: keeps compiled programs and freed memory."""
    keep_freed_memory()
    use_compilation_cache()


def keep_freed_memory(huge: int = 4 << 30) -> None:
    """Tells the C library to keep large freed buffers, and to back the first `huge` bytes by huge pages.

    A step on the CPU frees and takes hundreds of megabytes. By default glibc gives each large buffer
    back to the kernel, which then clears every page of the next one (see README, Speed). Elsewhere than on
    Linux with glibc this does nothing.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt') or not hasattr(libc, 'gnu_get_libc_version'):
        return
    trim_threshold, mmap_max, arena_max, advise_huge_pages, page = -1, -4, -8, 14, 1 << 21
    for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, -1)):
        libc.mallopt(option, value)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if start := libc.malloc(huge):  # untouched, so it takes addresses and no memory
        aligned = -(-start // page) * page
        libc.madvise(aligned, (start + huge - aligned) // page * page, advise_huge_pages)
        libc.free(start)


def use_compilation_cache() -> None:
    """Keeps compiled programs in JAX_COMPILATION_CACHE_DIR, or in `cache_dir()`."""
    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR') or cache_dir() / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


@functools.cache
def peak_flops() -> float:
    """Peak FLOP/s of all devices: by data sheet, or on a CPU what a large float32 product reaches.

    An accelerator that is not in the table counts as unknown: nan.
    """
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == 'cpu':
        return _measure_cpu() * jax.process_count()
    if chip := chips.of_device(kind):
        return chip.flops / chip.devices * jax.device_count()
    logging.warning('The peak speed of %r is unknown: utilisation is not reported.', kind)
    return float('nan')


def _measure_cpu(size: int = 2048, repeats: int = 10) -> float:
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    best = float('inf')
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
