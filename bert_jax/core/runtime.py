"""Process-wide settings (memory allocator, compilation cache) and the peak speed of the devices."""

import ctypes
import functools
import logging
import os
import resource
import timeit

import jax
import jax.numpy as jnp

from bert_jax.core import chips
from bert_jax.core.paths import cache_dir


def configure_process() -> None:
    """Apply the settings that every command needs before it computes.

    Compiled programs are cached on disk: in $JAX_COMPILATION_CACHE_DIR, or by default in `cache_dir()/xla`.
    """
    keep_freed_memory()
    allow_open_files()
    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR') or cache_dir() / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def allow_open_files(count: int = 4096) -> None:
    """Raise the limit of open files to `count`, as far as the system permits, since checkpoints need many."""
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < count:  # a negative limit is none
        limit = count if highest < 0 else min(count, highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, highest))


def keep_freed_memory() -> None:
    """Make the C library keep freed buffers, and back its first 4 GiB with huge pages.

    A training step on the CPU allocates and frees hundreds of megabytes. By default, glibc returns each large
    buffer to the kernel, which has to clear every page of the next one. Keeping them makes steps faster. Does
    nothing without glibc.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt') or not hasattr(libc, 'gnu_get_libc_version'):
        return
    trim_threshold, mmap_max, arena_max, advise_huge_pages, page = -1, -4, -8, 14, 1 << 21
    huge_page_bytes = 4 << 30
    for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, -1)):
        libc.mallopt(option, value)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if start := libc.malloc(huge_page_bytes):  # never written to, so it reserves addresses but no memory
        aligned = -(-start // page) * page
        libc.madvise(aligned, (start + huge_page_bytes - aligned) // page * page, advise_huge_pages)
        libc.free(start)


@functools.cache
def peak_flops() -> float:
    """Return the peak FLOP/s of all devices of all processes.

    Accelerators: bf16 peak from the data sheet, or NaN for an unknown chip. CPU: measured speed of a large float32
    matrix product.
    """
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == 'cpu':
        return _measure_cpu() * jax.process_count()
    if chip := chips.chip_of_device(kind):
        return chip.flops / chip.devices_per_chip * jax.device_count()
    logging.warning('The peak speed of %r is unknown, so utilization (MFU) is not reported.', kind)
    return float('nan')


def _measure_cpu() -> float:
    size = 2048
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    # The first run also compiles, so it is not the fastest one.
    seconds = timeit.repeat(lambda: product(x, x).block_until_ready(), number=1, repeat=5)
    return 2 * size**3 / min(seconds)
