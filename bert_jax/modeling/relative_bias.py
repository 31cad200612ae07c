"""Relative positions: a learned number for each distance and head, added to scores (Raffel et al. 2020, section 2.1)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.config import BlockConfig
from bert_jax.modeling.layers import param
from bert_jax.modeling.masks import Mask


def buckets(distance: jax.Array, n: int, farthest: int, causal: bool) -> jax.Array:
    """The bucket of each distance, a key's position less its query's: integers from 0 to n - 1.

    Half of the buckets are for one distance each, the others grow with its logarithm up to `farthest`, beyond which
    all share the last. Without `causal` each side has half of all.
    """
    side = 0 if causal else n // 2 * (distance > 0).astype(jnp.int32)
    n = n if causal else n // 2
    far = jnp.maximum(-distance, 0) if causal else jnp.abs(distance)
    exact = n // 2
    grown = jnp.log(jnp.maximum(far, exact) / exact) / math.log(farthest / exact) * (n - exact)
    return side + jnp.where(far < exact, far, jnp.minimum(exact + grown.astype(jnp.int32), n - 1))


class Relative(nnx.Module):
    """The numbers of one stack, which its layers share."""

    def __init__(self, config: BlockConfig, causal: bool, rngs: nnx.Rngs):
        self.config, self.causal = config, causal
        self.table = param(rngs, (config.relative, config.heads), (None, 'heads'), config.init_std)

    def __call__(self, mask: Mask | jax.Array | None, queries: jax.Array, keys: int) -> jax.Array:
        """What `attend` adds to scores.

        Args:
          mask: who may see whom, see `masks`; None is all.
          queries: [Tq], the places of the queries among the keys.
          keys: Tk, how many there are.

        Returns:
          [B or 1, N, Tq, Tk] float32.
        """
        c = self.config
        if isinstance(mask, Mask):
            mask = mask.array(len(queries), keys)
        distance = jnp.arange(keys) - queries[:, None]
        found = self.table[...][buckets(distance, c.relative, c.relative_range, self.causal)]
        bias = found.transpose(2, 0, 1)[None]
        return bias if mask is None else jnp.where(mask, bias, jnp.finfo(jnp.float32).min)
