"""GPT-2 (Radford et al. 2019): a causal transformer decoder; settings turn it into later variants."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import masks
from bert_jax.modeling.bert import Output
from bert_jax.modeling.config import Activation, ModelConfig
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.heads import HeadOutput, vocabulary_bias, vocabulary_logits
from bert_jax.modeling.layers import Cache, position_embedding, token_embedding
from bert_jax.modeling.losses import sequence_loss
from bert_jax.modeling.stack import Stack

# Layers, width, heads: table 2 of the paper; tiny and mini have the width of the small BERTs.
SIZES = {
    'tiny': (2, 128, 2),
    'mini': (4, 256, 4),
    'small': (12, 768, 12),
    'medium': (24, 1024, 16),
    'large': (36, 1280, 20),
    'xl': (48, 1600, 25),
}


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """Settings of a GPT model, with the defaults of GPT-2; those of its blocks are in `BlockConfig`.

    Attributes:
      size: name in `SIZES`, which sets layers, width and heads where they are 0; `mlp_width` 0 becomes 4 D.
    """

    causal: ClassVar[bool] = True
    size: str = 'small'
    max_positions: int = 1024
    norm_placement: Literal['post', 'pre'] = 'pre'
    norm_eps: float = 1e-5
    activation: Activation = 'gelu_tanh'
    scaled_residual_init: bool = True

    def __post_init__(self) -> None:
        self._fill_in_size(SIZES, self.size, 'layers', 'width', 'heads')
        object.__setattr__(self, 'mlp_width', self.mlp_width or 4 * self.width)
        super().__post_init__()

    def base_model(self, rngs: nnx.Rngs, pooler: bool) -> 'Gpt':
        return Gpt(self, rngs)

    def encode_flops(self, tokens: float, length: float, output_tokens: float | None = None) -> float:
        return self.block_flops(tokens, length)


class Gpt(nnx.Module):
    """GPT without a head: embeddings and causal blocks."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        c = self.config = config
        self.token_embedding = token_embedding(c, rngs)
        self.position_embedding = position_embedding(c, rngs)
        self.layers = Stack(c, rngs, causal=True)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Compute the hidden states of a batch.

        Args:
          tokens: [B, T] token ids.
          segments: ignored; all models share this signature.
          valid: [B, T] booleans, false on padding, or document numbers of a packed row (see
            `masks.padding`); None means all true. Positions always count from the first column.
          key: random key of dropout; None disables dropout.

        Raises:
          UserError: if T exceeds the number of learned positions.
        """
        c, (batch, length) = self.config, tokens.shape
        c.check_length(length)
        table = self.position_embedding
        vectors = None if table is None else table[...][c.position_offset :][:length]
        x = dropout(self._embed(tokens, vectors), c.dropout, fold_in(key, 0))
        positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        outputs = self.layers(x, masks.causal(valid), positions, fold_in(key, 1))
        return Output(tuple(h.reshape(batch, length, c.width) for h in (x, *outputs)), None)

    def encode(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Run the model; the pooled vector of a row is the last hidden state of its last real token.

        See Radford et al. 2018, section 3.2.
        """
        out = self(tokens, segments, valid, key)
        return out._replace(pooled=masks.select_last(out.hidden_states[-1], valid))

    def encode_pooled(self, *args: Any) -> jax.Array:
        """Compute only the pooled vectors [B, D]; arguments as in `encode`."""
        return self.encode(*args).pooled

    def _embed(self, tokens: jax.Array, position_vectors: jax.Array | None) -> jax.Array:
        """Embed tokens [B, T], add position vectors [T, D] or [B, T, D], and return [B*T, D]."""
        x = self.token_embedding[...][tokens]
        x = x if position_vectors is None else x + position_vectors
        return x.astype(self.config.dtype).reshape(-1, self.config.width)

    def extend(
        self, tokens: jax.Array, mask: jax.Array, positions: jax.Array, cache: list[Cache], index: jax.Array
    ) -> tuple[jax.Array, list[Cache]]:
        """Compute the hidden states [B, t, D] of new tokens [B, t] that follow the cache; see `Stack.extend`."""
        table = self.position_embedding
        vectors = None if table is None else table[...][self.config.position_offset + positions]
        x, cache = self.layers.extend(self._embed(tokens, vectors), mask, positions, cache, index)
        return x.reshape(*tokens.shape, -1), cache


class GptForCausalLM(nnx.Module):
    """GPT with a language-model head that shares the token embedding."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.gpt = Gpt(config, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """Run GPT and compute the logits [B, T, V] of the next tokens; arguments as in `Gpt`."""
        out = self.gpt(tokens, segments, valid, key)
        return HeadOutput(*out, self._logits(out.hidden_states[-1]))

    def _logits(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states [..., D] to logits [..., V], float32."""
        return vocabulary_logits(hidden, self.gpt.token_embedding, self.gpt.config)

    def init_cache(self, batch: int, slots: int) -> list[Cache]:
        """Create an empty cache with room for `slots` tokens in each of `batch` rows."""
        self.gpt.config.check_length(slots)
        return self.gpt.layers.init_cache(batch, slots)

    def extend(
        self, tokens: jax.Array, mask: jax.Array, positions: jax.Array, cache: list[Cache], index: jax.Array
    ) -> tuple[jax.Array, list[Cache]]:
        """Compute the logits [B, V] after the last of the new tokens [B, t]; see `Stack.extend`."""
        hidden, cache = self.gpt.extend(tokens, mask, positions, cache, index)
        return self._logits(hidden[:, -1]), cache

    def token_loss(self, hidden: jax.Array, labels: jax.Array, chunk: int = 0) -> tuple[jax.Array, jax.Array]:
        """Apply `sequence_loss` to hidden states [B, T, D] and `labels` [B, T]."""
        table = self.gpt.token_embedding[...].astype(hidden.dtype)
        return sequence_loss(hidden, table, vocabulary_bias(self.gpt.config), labels, chunk)
