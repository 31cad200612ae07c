"""GPT-2 (Radford et al. 2019): a decoder that predicts the next token, and its later variants as settings."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import masks
from bert_jax.modeling.bert import Output
from bert_jax.modeling.config import Activation, ModelConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.heads import HeadOutput, real_words_only, word_scores
from bert_jax.modeling.layers import Cache, position_table, word_table
from bert_jax.modeling.losses import sequence_loss
from bert_jax.modeling.stack import Stack

# Layers, width, heads: table 2 of the paper; tiny and mini are as wide as BERT's miniatures.
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
    """A GPT; the defaults are GPT-2's, and `BlockConfig` has what came after it.

    Attributes:
      size: a name in `SIZES`; it fills in layers, width and heads where they are 0, and four widths for `mlp`.
    """

    causal: ClassVar[bool] = True
    size: str = 'small'
    positions: int = 1024
    norm: Literal['post', 'pre'] = 'pre'
    norm_eps: float = 1e-5
    activation: Activation = 'gelu_tanh'
    scale_residual: bool = True

    def __post_init__(self) -> None:
        self._take_size(SIZES, self.size, 'layers', 'width', 'heads')
        object.__setattr__(self, 'mlp', self.mlp or 4 * self.width)
        super().__post_init__()

    def body(self, rngs: nnx.Rngs, pooler: bool) -> 'Gpt':
        return Gpt(self, rngs)

    def read_flops(self, tokens: float, length: float, at: float | None = None) -> float:
        return self.block_flops(tokens, length)


class Gpt(nnx.Module):
    """The decoder: embeddings and blocks in which a token sees what stands before it."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        c = self.config = config
        self.words = word_table(c, rngs)
        self.positions = position_table(c, rngs)
        self.layers = Stack(c, rngs, causal=True)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Reads a batch.

        Args:
          tokens: [B, T] ids.
          segments: not used; here for the call that all models share.
          valid: [B, T], see `masks.padding`: with numbered texts a token sees its own alone. Positions count
            from the first column on all the same.
          key: randomness of dropout; None is evaluation.

        Raises:
          UserError: if a row is longer than the learned positions.
        """
        c, (batch, length) = self.config, tokens.shape
        c.check_length(length)
        positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        places = None if self.positions is None else self.positions[...][c.first_position :][:length]
        x = dropout(self._embed(tokens, places), c.dropout, fold(key, 0))
        outputs = self.layers(x, masks.causal(valid), positions, fold(key, 1))
        return Output(tuple(h.reshape(batch, length, c.width) for h in (x, *outputs)), None)

    def read(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """As a call; a row's vector is the last hidden state of its last token (Radford et al. 2018, section 3.2)."""
        out = self(tokens, segments, valid, key)
        return out._replace(pooled=masks.at_last(out.hidden_states[-1], valid))

    def pool(self, *args: Any) -> jax.Array:
        """The rows' vectors [B, D] of `read`."""
        return self.read(*args).pooled

    def _embed(self, tokens: jax.Array, places: jax.Array | None) -> jax.Array:
        """[B, T] tokens and the vectors of their positions, [T, D] or [B, T, D], to [B*T, D]."""
        x = self.words[...][tokens]
        x = x if places is None else x + places
        return x.astype(self.config.dtype).reshape(-1, self.config.width)

    def extend(
        self, tokens: jax.Array, mask: jax.Array, positions: jax.Array, cache: list[Cache], index: jax.Array
    ) -> tuple[jax.Array, list[Cache]]:
        """Hidden states [B, t, D] of tokens [B, t] that go on from those in the cache; see `Stack.extend`."""
        c = self.config
        places = None if self.positions is None else self.positions[...][c.first_position + positions]
        x, cache = self.layers.extend(self._embed(tokens, places), mask, positions, cache, index)
        return x.reshape(*tokens.shape, -1), cache


class GptForCausalLM(nnx.Module):
    """GPT whose words are its own output table."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.gpt = Gpt(config, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Gpt`, with the scores [B, T, V] of each next token."""
        out = self.gpt(tokens, segments, valid, key)
        return HeadOutput(*out, self._scores(out.hidden_states[-1]))

    def _scores(self, hidden: jax.Array) -> jax.Array:
        """[..., D] to float32 [..., V]."""
        return word_scores(hidden, self.gpt.words, self.gpt.config)

    def empty_cache(self, batch: int, slots: int) -> list[Cache]:
        """For `slots` tokens of each of `batch` rows."""
        self.gpt.config.check_length(slots)
        return self.gpt.layers.empty_cache(batch, slots)

    def extend(
        self, tokens: jax.Array, mask: jax.Array, positions: jax.Array, cache: list[Cache], index: jax.Array
    ) -> tuple[jax.Array, list[Cache]]:
        """The scores [B, V] of what follows the last of tokens [B, t], and the cache; see `Stack.extend`."""
        hidden, cache = self.gpt.extend(tokens, mask, positions, cache, index)
        return self._scores(hidden[:, -1]), cache

    def token_loss(self, hidden: jax.Array, labels: jax.Array, chunk: int = 0) -> tuple[jax.Array, jax.Array]:
        """Loss and correctness [B, T] of predicting `labels` [B, T] from hidden states [B, T, D].

        `chunk` positions at a time, see `sequence_loss`.
        """
        bias = real_words_only(self.gpt.config)
        return sequence_loss(hidden, self.gpt.words[...].astype(hidden.dtype), bias, labels, chunk)
