"""Blocks of a transformer: self-attention and feed-forward, and between them, in a decoder, a look at another text."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.partitioning import constrain
from bert_jax.modeling.attention import attend
from bert_jax.modeling.config import BlockConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.layers import Attention, Cache, Dense, FeedForward, Norm, Read
from bert_jax.modeling.masks import Mask


class Block(nnx.Module):
    """Self-attention and feed-forward, each with its residual, norm and dropout."""

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
        at: jax.Array | None = None,
        memory: Any = None,
    ) -> jax.Array:
        """Runs flat activations [B*T, D] through the block.

        Args:
          x, mask, positions, key: see `Stack`.
          at: [B, P]; every position is attended to, but only these go on. None is all.
          memory: what a block that looks at another text sees of it.

        Returns:
          [B*P, D], or [B*T, D] without `at`.
        """
        y = self.attention(self._enter(x, self.attention_norm), mask, positions, fold(key, 0), at)
        if at is not None:
            rows = x.reshape(len(at), -1, x.shape[-1])
            x = jnp.take_along_axis(rows, at[..., None], axis=1).reshape(y.shape)
        x = self._leave(x, y, self.attention_norm, fold(key, 1))
        return self._after_attention(x, key, memory)

    def _enter(self, x: jax.Array, norm: Norm) -> jax.Array:
        """What a sublayer reads."""
        return norm(x) if self.config.norm == 'pre' else x

    def _leave(self, x: jax.Array, y: jax.Array, norm: Norm, key: jax.Array | None) -> jax.Array:
        """The residual stream `x` with a sublayer's output `y` in it."""
        x = x + dropout(y, self.config.dropout, key)
        return x if self.config.norm == 'pre' else norm(x)

    def _after_attention(self, x: jax.Array, key: jax.Array | None, memory: Any) -> jax.Array:
        y = self.mlp(self._enter(x, self.mlp_norm))
        return constrain(self._leave(x, y, self.mlp_norm, fold(key, 2)), 'batch', None)

    def empty_cache(self, batch: int, slots: int, memory: Any = None) -> Any:
        """Of an attention to `slots` tokens."""
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
        """As a call, on tokens that go on from those in the cache; see `Stack.extend`."""
        y, cache = self.attention.extend(self._enter(x, self.attention_norm), mask, positions, cache, index)
        x = self._leave(x, y, self.attention_norm, None)
        return self._after_attention(x, None, memory), cache


class CrossAttention(nnx.Module):
    """Multi-head attention to another text (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        c = self.config = config
        heads = {'heads': c.heads, 'kv': c.width // c.heads}
        self.q = Dense(c, {'embed': c.width}, heads, rngs)
        self.kv = Dense(c, {'embed': c.width}, {'': 2, **heads}, rngs)
        self.out = Dense(c, heads, {'embed': c.width}, rngs, residual=True)

    def keys(self, memory: jax.Array, batch: int) -> Cache:
        """Keys and values of the other text's hidden states [B*S, D]."""
        k, v = self._heads(self.kv(memory), batch, 2)
        return k, v

    def __call__(
        self, x: jax.Array, keys: Cache, mask: Mask | jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        """[B*T, D] to [B*T, D]; the mask is broadcastable to [B, 1, T, S]."""
        c = self.config
        (q,) = self._heads(self.q(x), len(keys[0]), 1)
        y = attend(q, *keys, mask, implementation=c.attention, rate=c.attention_dropout, key=key)
        return self.out(y.transpose(0, 2, 1, 3).reshape(len(x), -1))

    def _heads(self, y: jax.Array, batch: int, parts: int) -> list[jax.Array]:
        """[B*T, parts * D] to parts of [B, N, T, H]."""
        y = y.reshape(batch, -1, parts, self.config.heads, self.config.width // self.config.heads)
        return [constrain(part, 'batch', 'heads', None, None) for part in y.transpose(2, 0, 3, 1, 4)]


class DecoderBlock(Block):
    """A block that looks at an encoder's output between self-attention and feed-forward.

    Its `memory` is the hidden states [B*S, D] with their mask or, in `extend`, the mask alone: the cache has
    the keys.
    """

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.cross = CrossAttention(config, rngs)
        self.cross_norm = Norm(config, rngs)

    def empty_cache(self, batch: int, slots: int, memory: Any = None) -> Any:
        """As of `Block`; `memory` is the encoder's output [B*S, D]."""
        return super().empty_cache(batch, slots), Read(self.cross.keys(memory, batch))

    def _after_attention(self, x: jax.Array, key: jax.Array | None, memory: Any) -> jax.Array:
        hidden, mask = memory
        keys = hidden if isinstance(hidden, tuple) else self.cross.keys(hidden, mask.batch)
        y = self.cross(self._enter(x, self.cross_norm), keys, mask, fold(key, 3))
        x = self._leave(x, y, self.cross_norm, fold(key, 4))
        return super()._after_attention(x, key, None)

    def extend(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: Any,
        index: jax.Array,
        memory: Any = None,
    ) -> tuple[jax.Array, Any]:
        """As of `Block`; the cache is that of the self-attention, and the keys of the encoder's output."""
        own, keys = cache
        x, own = super().extend(x, mask, positions, own, index, (keys.value, memory))
        return x, (own, keys)
