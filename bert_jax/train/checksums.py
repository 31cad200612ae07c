"""Checksums of the arrays in a checkpoint, since a flipped bit in a file of Orbax can become another number unnoticed."""

import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def compute(tree: Any) -> str:
    """Return a checksum of all arrays of a tree, 16 hexadecimal digits; empty if they belong to several processes.

    It depends on every bit, but neither on the devices nor on the sharding.
    """
    if jax.process_count() > 1:
        return ''
    return hashlib.sha256(np.asarray(_sums(jax.tree.leaves(tree))).tobytes()).hexdigest()[:16]


def check(tree: Any, expected: str, name: str) -> None:
    """Check the arrays of a tree that was restored with the dtypes with which it was saved.

    Args:
      tree: the arrays.
      expected: result of `compute` when they were saved; empty checks nothing.
      name: what the arrays are, for the message.

    Raises:
      ValueError: if the arrays differ.
    """
    if expected and compute(tree) not in ('', expected):
        raise ValueError(f'the {name} have changed since they were saved')


@jax.jit
def _sums(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([_sum(leaf) for leaf in leaves])


def _sum(x: jax.Array) -> jax.Array:
    """Return the sum of the bits of each element times an odd number, modulo 2**32; a single flipped bit changes it."""
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    weights = jnp.ones(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = np.uint32(2 * math.prod(bits.shape[axis + 1 :]) % 2**32)
        weights += stride * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return (bits * weights).sum(dtype=jnp.uint32)
