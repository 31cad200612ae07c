"""BERT (Devlin et al. 2019, arXiv 1810.04805): a bidirectional transformer encoder."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import within
from bert_jax.modeling import masks
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.heads import HeadOutput, real_words_only, word_scores
from bert_jax.modeling.layers import ACTIVATIONS, Dense, Norm, param, position_table, word_table
from bert_jax.modeling.losses import vocabulary_loss
from bert_jax.modeling.stack import Stack

# Layers, width, heads, feed-forward: section 3 of the paper for base and large, the miniatures of
# Turc et al. 2019 (arXiv 1908.08962) for the rest.
SIZES = {
    'tiny': (2, 128, 2, 512),
    'mini': (4, 256, 4, 1024),
    'small': (4, 512, 8, 2048),
    'medium': (8, 512, 8, 2048),
    'base': (12, 768, 12, 3072),
    'large': (24, 1024, 16, 4096),
}


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """A BERT; see `BlockConfig` for the shape of its blocks.

    Attributes:
      size: a name in `SIZES`; it fills in width, heads, mlp and layers where they are 0.
      segments: learned segment vectors; 0 is none, and 1 is the same for both texts.
      pooler: activation of the pooled vector; 'relu' is DistilBERT's.
    """

    size: str = 'base'
    segments: int = 2
    pooler: Literal['tanh', 'relu'] = 'tanh'

    def __post_init__(self) -> None:
        self._take_size(SIZES, self.size, 'layers', 'width', 'heads', 'mlp')
        within(self, 'model', 0, math.inf, 'segments')
        super().__post_init__()

    def body(self, rngs: nnx.Rngs, pooler: bool) -> 'Bert':
        return Bert(self, rngs, pooler)


class Output(NamedTuple):
    """What an encoder returns.

    Attributes:
      hidden_states: L+1 arrays [B, T, D]: the embeddings, then the output of each layer; the last
        is [B, 1+P, D] where only P positions beside the first were wanted of it.
      pooled: [B, D], tanh of a dense layer over the first position; None without a pooler.
    """

    hidden_states: tuple[jax.Array, ...]
    pooled: Any


class Bert(nnx.Module):
    """The encoder: embeddings, blocks and, for heads over the whole row, a pooler."""

    def __init__(self, config: Config, rngs: nnx.Rngs, pooler: bool = True):
        c = self.config = config
        self.words = word_table(c, rngs)
        self.positions = position_table(c, rngs)
        kinds = (c.segments, c.width), (None, 'embed')
        self.segments = param(rngs, *kinds, c.init_std) if c.segments else None
        self.norm = Norm(c, rngs)
        self.layers = Stack(c, rngs)
        self.pooler = Dense(c, {'embed': c.width}, {'': c.width}, rngs) if pooler else None

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        at: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> Output:
        """Encodes a batch.

        Args:
          tokens: [B, T] ids.
          segments: [B, T], 0 for the first text and 1 for the second; None is all 0.
          valid: [B, T] booleans, false on padding (see `masks.padding`); None is all true.
          key: randomness of dropout; None is evaluation.
          at: [B, P], the only positions beside the first where the last layer's output is wanted,
            which saves most of that layer; None is everywhere.
          positions: [B, T], where each token counts as standing; None is 0, 1, 2, ...

        Raises:
          UserError: if a row is longer than the learned positions.
        """
        c, (batch, length) = self.config, tokens.shape
        c.check_length(length)
        dtype = jnp.dtype(c.dtype)
        x = self.words[...][tokens]
        if self.segments is not None:
            kinds = jnp.zeros_like(tokens) if segments is None else jnp.minimum(segments, c.segments - 1)
            x = x + self.segments[...][kinds]
        if self.positions is not None:
            table = self.positions[...][c.first_position :]
            x = x + (table[:length] if positions is None else table[positions])
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        x = dropout(self.norm(x.astype(dtype)), c.dropout, fold(key, 0)).reshape(batch * length, c.width)
        mask = None if valid is None else masks.padding(valid)
        if at is not None:
            at = jnp.pad(at, ((0, 0), (1, 0)))
        outputs = self.layers(x, mask, positions, fold(key, 1), at)
        hidden = tuple(h.reshape(batch, -1, c.width) for h in (x, *outputs))
        if self.pooler is None:
            return Output(hidden, None)
        return Output(hidden, _POOLERS[c.pooler](self.pooler(hidden[-1][:, 0])))

    read = __call__

    def pool(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The pooled vectors [B, D] alone: the last layer's output is computed at the first position only."""
        nowhere_else = jnp.zeros((len(tokens), 0), jnp.int32)
        return self(tokens, segments, valid, key, nowhere_else).pooled


_POOLERS = {'tanh': jnp.tanh, 'relu': jax.nn.relu}


class MaskedLM(nnx.Module):
    """Dense, activation, norm, then the transposed word embeddings with a bias of their own."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        c = self.config = config
        self.dense = Dense(c, {'embed': c.width}, {'': c.width}, rngs)
        self.norm = Norm(c, rngs)
        self.bias = param(rngs, (c.padded_vocab,), ('vocab',), 0)

    def features(self, x: jax.Array) -> jax.Array:
        """[M, D] hidden states to the [M, D] that meet the word embeddings."""
        return self.norm(ACTIVATIONS[self.config.activation](self.dense(x)))

    def biases(self) -> jax.Array:
        """[V] float32, where the entries that only pad the vocabulary can never win."""
        return real_words_only(self.config, self.bias[...])


class BertForPretraining(nnx.Module):
    """BERT with the heads of section 3.1: masked LM and, if `next`, next-sentence prediction."""

    def __init__(self, config: Config, rngs: nnx.Rngs, next: bool = True):
        self.bert = Bert(config, rngs, pooler=next)
        self.masked_lm = MaskedLM(config, rngs)
        self.next_sentence = Dense(config, {'embed': config.width}, {'': 2}, rngs) if next else None

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with scores for every position."""
        out = self.bert(tokens, segments, valid, key)
        return HeadOutput(*out, self.word_scores(out.hidden_states[-1]), self.next_scores(out.pooled))

    def word_scores(self, hidden: jax.Array) -> jax.Array:
        """[..., D] last hidden states to the float32 scores [..., V] of the masked LM."""
        features = self.masked_lm.features(hidden.reshape(-1, hidden.shape[-1]))
        logits = word_scores(features, self.bert.words, self.bert.config, self.masked_lm.biases())
        return logits.reshape(*hidden.shape[:-1], -1)

    def next_scores(self, pooled: jax.Array) -> Any:
        """[B, D] to [B, 2] float32; None without next-sentence prediction."""
        return None if self.next_sentence is None else self.next_sentence(pooled).astype(jnp.float32)

    def masked_loss(self, hidden: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Loss and correctness of the positions to predict; no other reaches the vocabulary.

        Args:
          hidden: [B, P, D], the last hidden states at these positions.
          labels: [B, P].

        Returns:
          [B, P] float32 losses, and [B, P] booleans.
        """
        features = self.masked_lm.features(hidden.reshape(-1, hidden.shape[-1]))
        table = self.bert.words[...].astype(features.dtype)
        loss, correct = vocabulary_loss(features, table, self.masked_lm.biases(), labels.reshape(-1))
        return loss.reshape(labels.shape), correct.reshape(labels.shape)
