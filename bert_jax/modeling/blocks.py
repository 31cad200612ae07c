"""Transformer blocks: self-attention and feed-forward, with cross-attention between them in a decoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.partitioning import constrain
from bert_jax.modeling.attention import attend
from bert_jax.modeling.config import BlockConfig
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.layers import Attention, Cache, Dense, EncoderCache, FeedForward, Norm
from bert_jax.modeling.masks import Mask


class Block(nnx.Module):
    """Self-attention and feed-forward, each with residual connection, norm and dropout."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        self.config = config
        self.attention = Attention(config, rngs)
        self.attention_norm = Norm(config, rngs)
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
            rows = x.reshape(len(output_positions), -1, x.shape[-1])
            x = jnp.take_along_axis(rows, output_positions[..., None], axis=1).reshape(y.shape)
        x = self._add_residual(x, y, self.attention_norm, fold_in(key, 1))
        return self._after_attention(x, key, memory)

    def _before_sublayer(self, x: jax.Array, norm: Norm) -> jax.Array:
        """Normalize the input of a sublayer in a pre-norm block."""
        return norm(x) if self.config.norm_placement == 'pre' else x

    def _add_residual(self, x: jax.Array, y: jax.Array, norm: Norm, key: jax.Array | None) -> jax.Array:
        """Add the sublayer output `y` to the residual stream `x`; in a post-norm block, normalize the sum."""
        x = x + dropout(y, self.config.dropout, key)
        return x if self.config.norm_placement == 'pre' else norm(x)

    def _after_attention(self, x: jax.Array, key: jax.Array | None, memory: Any) -> jax.Array:
        """Run the sublayers that follow self-attention."""
        y = self.mlp(self._before_sublayer(x, self.mlp_norm))
        return constrain(self._add_residual(x, y, self.mlp_norm, fold_in(key, 2)), 'batch', None)

    def init_cache(self, batch: int, slots: int, memory: Any = None) -> Any:
        """Create an empty cache with room for `slots` tokens in each of `batch` rows."""
        c = self.config
        shape = (batch, c.kv_heads or c.heads, slots, c.width // c.heads)
        return jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)

    def extend(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: Cache,
        index: jax.Array,
        memory: Any = None,
    ) -> tuple[jax.Array, Cache]:
        """Process new tokens that follow those in the cache; see `Stack.extend`."""
        y = self._before_sublayer(x, self.attention_norm)
        y, cache = self.attention.extend(y, mask, positions, cache, index)
        x = self._add_residual(x, y, self.attention_norm, None)
        return self._after_attention(x, None, memory), cache


class CrossAttention(nnx.Module):
    """Multi-head attention from decoder tokens to encoder outputs (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        c = self.config = config
        heads = {'heads': c.heads, 'kv': c.width // c.heads}
        self.q = Dense(c, {'embed': c.width}, heads, rngs)
        self.kv = Dense(c, {'embed': c.width}, {'': 2, **heads}, rngs)
        self.out = Dense(c, heads, {'embed': c.width}, rngs, residual=True)

    def keys_and_values(self, encoded: jax.Array, batch: int) -> Cache:
        """Project the encoder outputs [B*S, D] to keys and values."""
        k, v = self._split_heads(self.kv(encoded), batch, 2)
        return k, v

    def __call__(
        self, x: jax.Array, keys_and_values: Cache, mask: Mask | jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        """Map decoder activations [B*T, D] to [B*T, D]; the mask is broadcastable to [B, 1, T, S]."""
        c, (k, v) = self.config, keys_and_values
        (q,) = self._split_heads(self.q(x), len(k), 1)
        implementation, rate = c.attention_implementation, c.attention_dropout
        y = attend(q, k, v, mask, implementation=implementation, dropout_rate=rate, key=key)
        return self.out(y.transpose(0, 2, 1, 3).reshape(len(x), -1))

    def _split_heads(self, y: jax.Array, batch: int, parts: int) -> list[jax.Array]:
        """Split [B*T, parts * D] into `parts` arrays [B, N, T, H]."""
        y = y.reshape(batch, -1, parts, self.config.heads, self.config.width // self.config.heads)
        return [constrain(part, 'batch', 'heads', None, None) for part in y.transpose(2, 0, 3, 1, 4)]


class DecoderBlock(Block):
    """A block with cross-attention to the encoder between self-attention and feed-forward.

    In a call, `memory` is a pair of the encoder outputs [B*S, D] and their mask. In `init_cache` it is the
    outputs alone, and in `extend` the mask alone, because the cache holds the keys and values of the outputs.
    """

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.cross_attention = CrossAttention(config, rngs)
        self.cross_attention_norm = Norm(config, rngs)

    def _after_attention(self, x: jax.Array, key: jax.Array | None, memory: Any) -> jax.Array:
        encoded, mask = memory  # `extend` passes keys and values in place of the encoder outputs
        if isinstance(encoded, tuple):
            keys_and_values = encoded
        else:
            keys_and_values = self.cross_attention.keys_and_values(encoded, mask.batch_size)
        y = self._before_sublayer(x, self.cross_attention_norm)
        y = self.cross_attention(y, keys_and_values, mask, fold_in(key, 3))
        x = self._add_residual(x, y, self.cross_attention_norm, fold_in(key, 4))
        return super()._after_attention(x, key, None)

    def init_cache(self, batch: int, slots: int, memory: Any = None) -> Any:
        """Create an empty self-attention cache, and the keys and values of the encoder outputs `memory` [B*S, D]."""
        keys_and_values = self.cross_attention.keys_and_values(memory, batch)
        return super().init_cache(batch, slots), EncoderCache(keys_and_values)

    def extend(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: Any,
        index: jax.Array,
        memory: Any = None,
    ) -> tuple[jax.Array, Any]:
        """Process new tokens that follow those in the cache of `init_cache`; see `Stack.extend`."""
        self_cache, encoder_cache = cache
        memory = (encoder_cache.value, memory)
        x, self_cache = super().extend(x, mask, positions, self_cache, index, memory)
        return x, (self_cache, encoder_cache)
