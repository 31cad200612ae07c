"""Transformer blocks: self-attention and feed-forward, with cross-attention between them in a decoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.partitioning import constrain
from bert_jax.modeling.attention import attend, unscaled
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.disentangled import DisentangledAttention
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.layers import (
    Attention,
    Cache,
    Dense,
    FeedForward,
    Norm,
    merge_heads,
    split_heads,
)
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.module import Rngs


class Block(nnx.Module):
    """Self-attention and feed-forward, each with residual connection, norm and dropout."""

    def __init__(self, config: ModelConfig, rngs: Rngs):
        self.config = config
        attention = DisentangledAttention if config.disentangled_buckets else Attention
        self.attention = attention(config, rngs)
        self.attention_norm = Norm(config, rngs) if config.first_norm else None
        self.mlp = FeedForward(config, rngs)
        self.mlp_norm = Norm(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        output_positions: jax.Array | None = None,
        memory: Any = None,
    ) -> jax.Array:
        """Map activations [B*T, D] to [B*T, D], or [B*P, D] with `output_positions`; arguments as in `Stack`."""
        y = self._before_sublayer(x, self.attention_norm)
        y = self.attention(y, mask, positions, fold_in(key, 0), output_positions)
        if output_positions is not None:
            rows = x.reshape(output_positions.shape[0], -1, x.shape[-1])
            x = jnp.take_along_axis(rows, output_positions[..., None], axis=1).reshape(y.shape)
        x = self._add_residual(x, y, self.attention_norm, fold_in(key, 1))
        return self._after_attention(x, key, memory)

    def _before_sublayer(self, x: jax.Array, norm: Norm | None) -> jax.Array:
        """Normalize the input of a sublayer in a pre-norm block."""
        return norm(x) if norm is not None and self.config.norm_placement == 'pre' else x

    def _add_residual(
        self, x: jax.Array, y: jax.Array, norm: Norm | None, key: jax.Array | None
    ) -> jax.Array:
        """Add the sublayer output `y` to the residual stream `x`; in a post-norm block, normalize the sum."""
        x = x + dropout(y, self.config.dropout, key)
        return norm(x) if norm is not None and self.config.norm_placement == 'post' else x

    def _after_attention(self, x: jax.Array, key: jax.Array | None, memory: Any) -> jax.Array:
        """Run the sublayers that follow self-attention."""
        y = self.mlp(self._before_sublayer(x, self.mlp_norm))
        return constrain(self._add_residual(x, y, self.mlp_norm, fold_in(key, 2)), 'batch', None)

    def init_cache(self, batch: int, slots: int) -> Cache:
        """Create an empty cache with room for `slots` tokens in each of `batch` rows."""
        c = self.config
        shape = (batch, c.kv_heads or c.heads, slots, c.width_per_head)
        return jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)

    def extend(
        self, x: jax.Array, mask: jax.Array, positions: jax.Array, cache: Cache, index: jax.Array, memory: Any
    ) -> tuple[jax.Array, Cache]:
        """Run new tokens through the block and append their keys and values to its cache.

        The arguments are those of `Stack.extend`, except that `memory` is the encoder part of the cache for this
        block, see `DecoderBlock`.
        """
        y = self._before_sublayer(x, self.attention_norm)
        y, cache = self.attention.extend(y, mask, positions, cache, index)
        x = self._add_residual(x, y, self.attention_norm, None)
        return self._after_attention(x, None, memory), cache


class CrossAttention(nnx.Module):
    """Multi-head attention from decoder tokens to encoder outputs (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, config: ModelConfig, rngs: Rngs):
        c = self.config = config
        heads = {'heads': c.heads, 'kv': c.width_per_head}
        self.q = Dense(c, {'embed': c.width}, heads, rngs)
        self.kv = Dense(c, {'embed': c.width}, {'': 2, **heads}, rngs)
        self.out = Dense(c, heads, {'embed': c.width}, rngs, residual=True)

    def keys_and_values(self, encoded: jax.Array) -> Cache:
        """Project the encoder outputs [B, S, D] to keys and values."""
        batch, _, width = encoded.shape
        k, v = split_heads(self.kv(encoded.reshape(-1, width)), 2, batch, self.config)
        return k, v

    def __call__(
        self, x: jax.Array, keys_and_values: Cache, mask: Mask | jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        """Map decoder activations [B*T, D] to [B*T, D]; the mask is broadcastable to [B, 1, T, S]."""
        c, (k, v) = self.config, keys_and_values
        (q,) = split_heads(self.q(x), 1, k.shape[0], c)
        q = q if c.scale_attention else unscaled(q)
        implementation, rate = c.attention_implementation, c.attention_dropout
        y = attend(q, k, v, mask, implementation=implementation, dropout_rate=rate, key=key)
        return self.out(merge_heads(y))


class DecoderBlock(Block):
    """A block with cross-attention to the encoder between self-attention and feed-forward.

    `memory` is a pair: the encoder outputs [B, S, D], or in `extend` their keys and values, which need not be
    computed again for each token; and the mask of the encoder outputs.
    """

    def __init__(self, config: ModelConfig, rngs: Rngs):
        super().__init__(config, rngs)
        self.cross_attention = CrossAttention(config, rngs)
        self.cross_attention_norm = Norm(config, rngs)

    def _after_attention(self, x: jax.Array, key: jax.Array | None, memory: Any) -> jax.Array:
        source, mask = memory
        if isinstance(source, jax.Array):
            source = self.cross_attention.keys_and_values(source)
        y = self._before_sublayer(x, self.cross_attention_norm)
        y = self.cross_attention(y, source, mask, fold_in(key, 3))
        x = self._add_residual(x, y, self.cross_attention_norm, fold_in(key, 4))
        return super()._after_attention(x, key, None)
