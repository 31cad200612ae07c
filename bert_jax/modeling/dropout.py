"""Dropout as a pure function."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.core import partitioning


def dropout(x: jax.Array, rate: float, key: jax.Array | None, axes: Sequence[str] = ('batch',)) -> jax.Array:
    """Zero each entry with probability `rate` and scale up the rest (Srivastava et al. 2014).

    A decision costs 8 random bits, or 16 if the rate is below 0.05. The rate is rounded to a multiple of 1/256 or
    1/65,536, and the scale is that of the rounded rate, so the expectation of each entry is exact.

    Args:
      x: array with at least one dimension.
      rate: probability, from 0 to 0.99; 0 draws nothing and returns `x`.
      key: random key; None returns `x`.
      axes: logical names of the leading dimensions of `x`, over which the hardware generator splits its work.
    """
    if key is None or rate == 0:
        return x
    width = 8 if rate >= 0.05 else 16
    dropped = max(1, round(2**width * rate))
    keep = random_integers(key, x.shape, width, axes) >= dropped
    return jnp.where(keep, x / (1 - dropped / 2**width), jnp.zeros_like(x))


def random_integers(key: jax.Array, shape: Sequence[int], width: int, axes: Sequence[str] = ()) -> jax.Array:
    """Draw uint32 integers below 2**width, several from each random word of 32 bits.

    Args:
      key: random key.
      shape: shape of the result.
      width: 8 or 16 bits.
      axes: logical names of the leading dimensions, see `dropout`.
    """
    *leading, last = shape
    words = _random_words(key, (*leading, -(-last * width // 32)), axes)
    shifts = np.arange(0, 32, width, dtype=np.uint32)[:, None]
    # The parts of a word are not neighbors: TPUs pad a last dimension of 4 parts to 128.
    integers = (words[..., None, :] >> shifts) & np.uint32(2**width - 1)
    return integers.reshape(*leading, -1)[..., :last]


def _random_words(key: jax.Array, shape: Sequence[int], axes: Sequence[str]) -> jax.Array:
    """Draw uint32 words.

    XLA does not split the work of the hardware generator: each device would draw the words of all. Instead, each part of
    the array has a key of its own, and a device draws only the part that it holds.
    """
    partitioner = partitioning.active()
    if jax.random.key_impl(key) != 'rbg':
        # In one dimension, XLA compiles the random words for a CPU up to six times as fast. They are the same.
        drawn = (math.prod(shape),) if partitioning.is_single_cpu() else shape
        return jax.random.bits(key, drawn, 'uint32').reshape(shape)
    if partitioner is None or partitioner.mesh.size == 1:
        return jax.random.bits(key, shape, 'uint32')
    sharding = NamedSharding(partitioner.mesh, partitioner.spec(axes))
    local = sharding.shard_shape(tuple(shape))
    parts = [n // m for n, m in zip(shape, local, strict=True)]
    index = jnp.arange(math.prod(parts)).reshape(parts)

    def draw(key: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(key, index.reshape(())), local, 'uint32')

    spec = sharding.spec
    shard_map = functools.partial(jax.shard_map, mesh=partitioner.mesh, check_vma=False)
    return shard_map(draw, in_specs=(P(), spec), out_specs=spec)(key, index)


def fold_in(key: jax.Array | None, index: int | jax.Array) -> jax.Array | None:
    """Derive a new random key from `key` and `index`; None stays None."""
    return None if key is None else jax.random.fold_in(key, index)
