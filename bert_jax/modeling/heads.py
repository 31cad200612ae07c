"""Heads: the uses of BERT, on whatever reads texts, be it BERT, GPT or BART; scores of a vocabulary."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import cpu_decoding
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.layers import Dense, param
from bert_jax.modeling.lstm import BiLstm


class HeadOutput(NamedTuple):
    """An encoder's output with that of its head.

    Attributes:
      hidden_states: L+1 arrays, see `bert.Output`.
      pooled: [B, D], or None where the head does not use it.
      logits: the head's float32 scores: [B, T, V] of masked LM, [B, classes] of a class for the row,
        [B, T, classes] of one for each token, [B, T, 2] of the start and end of a span; None without a head.
      next_sentence: [B, 2] scores (is next, is random) of a pretraining model, or None.
    """

    hidden_states: tuple[jax.Array, ...]
    pooled: Any
    logits: Any
    next_sentence: Any = None


def word_scores(
    hidden: jax.Array, words: nnx.Param, config: ModelConfig, bias: jax.Array | None = None
) -> jax.Array:
    """Float32 scores [..., V] of the entries of the vocabulary for hidden states [..., D]."""
    table = words[...].astype(hidden.dtype)
    scores = cpu_decoding.product(hidden, table, transposed=True, dtype=jnp.float32)
    return (scores if bias is None else scores + bias)[..., : config.vocab_size]


def real_words_only(config: ModelConfig, bias: jax.Array | None = None) -> jax.Array:
    """[V] float32, a bias (or none) by which the entries that only pad the vocabulary can never win."""
    c = config
    return jnp.where(
        jnp.arange(c.padded_vocab) < c.vocab_size, jnp.float32(0) if bias is None else bias, -1e9
    )


def by_token(dense: Dense, hidden: jax.Array) -> jax.Array:
    """A dense layer over hidden states [B, T, D], as float32 scores [B, T, classes]."""
    scores = dense(hidden.reshape(-1, hidden.shape[-1]))
    return scores.reshape(*hidden.shape[:-1], -1).astype(jnp.float32)


class Head(nnx.Module):
    """A model that reads texts, with something to say of them.

    The model is whatever `config.body` makes: BERT, GPT or BART. It is an attribute by its name, as in the paths of
    its parameters, and has `read`, which gives hidden states and a vector of each row, and `pool`, which gives
    that vector alone.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, pooler: bool = False):
        self.config = config
        setattr(self, config.name, config.body(rngs, pooler))

    @property
    def body(self) -> Any:
        return getattr(self, self.config.name)


class ForClassification(Head):
    """A class for the row, from its pooled vector (section 4.1 of the paper)."""

    def __init__(self, config: ModelConfig, classes: int, rngs: nnx.Rngs):
        super().__init__(config, rngs, pooler=True)
        self.classifier = Dense(config, {'embed': config.width}, {'': classes}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with a score for every class."""
        out = self.body.read(tokens, segments, valid, fold(key, 0))
        return HeadOutput(out.hidden_states, out.pooled, self._scores(out.pooled, key))

    def scores(self, batch: Mapping[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """Of a batch's `tokens`, `segments` and `valid`, [B, T] each, the logits [B, classes] alone."""
        pooled = self.body.pool(batch['tokens'], batch['segments'], batch['valid'], fold(key, 0))
        return self._scores(pooled, key)

    def _scores(self, pooled: jax.Array, key: jax.Array | None) -> jax.Array:
        return self.classifier(dropout(pooled, self.config.dropout, fold(key, 1))).astype(jnp.float32)


class ForTokenClassification(Head):
    """A class for each token, from the last hidden states (section 5.3 of the paper)."""

    def __init__(self, config: ModelConfig, classes: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.classifier = Dense(config, {'embed': config.width}, {'': classes}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with a score for every class at every position."""
        out = self.body.read(tokens, segments, valid, fold(key, 0))
        hidden = dropout(out.hidden_states[-1], self.config.dropout, fold(key, 1))
        return HeadOutput(out.hidden_states, None, by_token(self.classifier, hidden))


class Features(Head):
    """A class for each token from hidden states of a frozen model, by two layers of a BiLSTM (table 7 of the paper).

    Sums are weighted, by a softmax over layers times a factor, both learned (Peters et al. 2018, equation 1).
    """

    def __init__(self, config: ModelConfig, classes: int, features: str, lstm: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.features = features
        layers = {'sum_last_four': min(4, config.layers), 'sum_all': config.layers}.get(features, 0)
        self.mixture = param(rngs, (layers,), (None,), 0) if layers else None
        self.factor = param(rngs, (1,), (None,), None) if layers else None
        wide = min(4, config.layers) if features == 'concat_last_four' else 1
        self.lstm = BiLstm(config, wide * config.width, lstm or config.width, 2, rngs)
        self.classifier = Dense(config, {'': 2 * (lstm or config.width)}, {'': classes}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `ForTokenClassification`; the model below has no dropout and gets no gradient."""
        out = self.body.read(tokens, segments, valid)
        x = self._chosen(jax.lax.stop_gradient(out.hidden_states))
        valid = jnp.ones(tokens.shape, bool) if valid is None else valid
        x = self.lstm(dropout(x, self.config.dropout, fold(key, 0)), valid)
        x = dropout(x, self.config.dropout, fold(key, 1))
        return HeadOutput(out.hidden_states, None, by_token(self.classifier, x))

    def _chosen(self, hidden: tuple[jax.Array, ...]) -> jax.Array:
        if self.mixture is not None and self.factor is not None:
            weights = jax.nn.softmax(self.mixture[...]) * self.factor[...]
            chosen = hidden[-len(weights) :]
            return sum(
                (w.astype(h.dtype) * h for w, h in zip(weights, chosen, strict=True)),
                jnp.zeros_like(chosen[0]),
            )
        if self.features == 'concat_last_four':
            return jnp.concatenate(hidden[1:][-4:], -1)
        return hidden[{'embeddings': 0, 'second_to_last': -2, 'last': -1}[self.features]]


class ForQuestionAnswering(Head):
    """Two vectors, for the start and the end of the answer (section 4.2 of the paper)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.spans = Dense(config, {'embed': config.width}, {'': 2}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with scores of start and end at every position."""
        out = self.body.read(tokens, segments, valid, key)
        return HeadOutput(out.hidden_states, None, by_token(self.spans, out.hidden_states[-1]))


class Encoder(Head):
    """A model without a head."""

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`."""
        out = self.body.read(tokens, segments, valid, key)
        return HeadOutput(out.hidden_states, out.pooled, None)
