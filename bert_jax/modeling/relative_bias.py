"""Relative position bias: a learned bias of attention scores per distance and head (Raffel et al. 2020, section 2.1)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.layers import param
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.module import Rngs


def relative_position_bucket(
    distance: jax.Array, num_buckets: int, max_distance: int, causal: bool
) -> jax.Array:
    """Map distances, key position minus query position, to buckets 0 to `num_buckets` - 1.

    The first half of the buckets hold one distance each. The others hold ranges that have equal width in the
    logarithm of the distance and end at `max_distance`; larger distances fall into the last bucket.

    Without `causal`, keys after the query have their own buckets: each direction gets half of them and
    divides its half in this way.
    """
    offset = 0 if causal else num_buckets // 2 * (distance > 0).astype(jnp.int32)
    num_buckets = num_buckets if causal else num_buckets // 2
    distance = jnp.maximum(-distance, 0) if causal else jnp.abs(distance)
    exact = num_buckets // 2
    log_ratio = jnp.log(jnp.maximum(distance, exact) / exact) / math.log(max_distance / exact)
    log_bucket = exact + (log_ratio * (num_buckets - exact)).astype(jnp.int32)
    return offset + jnp.where(distance < exact, distance, jnp.minimum(log_bucket, num_buckets - 1))


class RelativeBias(nnx.Module):
    """Relative position bias that all layers of a stack share."""

    def __init__(self, config: ModelConfig, causal: bool, rngs: Rngs):
        self.config, self.causal = config, causal
        self.table = param(rngs, (config.relative_buckets, config.heads), (None, 'heads'), config.init_std)

    def __call__(self, mask: Mask | jax.Array | None, query_positions: jax.Array, keys: int) -> jax.Array:
        """Compute the bias of attention scores; where the mask forbids attention it is the lowest float32.

        Args:
          mask: attention mask, or booleans broadcastable to [B, N, Tq, Tk]; None allows attention everywhere.
          query_positions: [Tq] positions of the queries among the keys.
          keys: number of keys Tk.

        Returns:
          [B or 1, N, Tq, Tk] float32.
        """
        c = self.config
        if isinstance(mask, Mask):
            mask = mask.to_array(query_positions.shape[0], keys)
        distance = jnp.arange(keys) - query_positions[:, None]
        buckets = relative_position_bucket(distance, c.relative_buckets, c.relative_max_distance, self.causal)
        bias = self.table[...][buckets].transpose(2, 0, 1)[None]
        return bias if mask is None else jnp.where(mask, bias, jnp.finfo(jnp.float32).min)
