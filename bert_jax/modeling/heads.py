"""Heads on an encoder: masked LM with next sentence, and the four uses of BERT."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.bert import Bert, Config
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.layers import ACTIVATIONS, Dense, Norm, param
from bert_jax.modeling.losses import vocabulary_loss
from bert_jax.modeling.recurrent import BiLstm


class HeadOutput(NamedTuple):
    """An encoder's output with that of its head.

    Attributes:
      hidden_states: L+1 arrays, see `bert.Output`.
      pooled: [B, D], or None where the head does not use it.
      logits: the head's float32 scores: [B, T, V] of masked LM, [B, classes] of a class for the row,
        [B, T, classes] of one for each token, [B, T, 2] of the start and end of a span, [B] of one among
        choices; None without a head.
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
    scores = jnp.matmul(hidden, table.T, preferred_element_type=jnp.float32)
    return (scores if bias is None else scores + bias)[..., : config.vocab_size]


def real_words_only(config: ModelConfig, bias: jax.Array | None = None) -> jax.Array:
    """[V] float32, a bias (or none) by which the entries that only pad the vocabulary can never win."""
    c = config
    return jnp.where(
        jnp.arange(c.padded_vocab) < c.vocab_size, jnp.float32(0) if bias is None else bias, -1e9
    )


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
        hidden = out.hidden_states[-1]
        features = self.masked_lm.features(hidden.reshape(-1, hidden.shape[-1]))
        logits = word_scores(features, self.bert.words, self.bert.config, self.masked_lm.biases())
        return HeadOutput(*out, logits.reshape(*tokens.shape, -1), self.next_scores(out.pooled))

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


class BertForClassification(nnx.Module):
    """BERT with a class for the row, from the pooled vector (section 4.1 of the paper)."""

    def __init__(self, config: Config, classes: int, rngs: nnx.Rngs):
        self.config = config
        self.bert = Bert(config, rngs)
        self.classifier = Dense(config, {'embed': config.width}, {'': classes}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with a score for every class."""
        out = self.bert(tokens, segments, valid, fold(key, 0), at)
        logits = self.classifier(dropout(out.pooled, self.config.dropout, fold(key, 1)))
        return HeadOutput(*out, logits.astype(jnp.float32))


class BertForTokenClassification(nnx.Module):
    """BERT with a class for each token, from the last hidden states (section 5.3 of the paper)."""

    def __init__(self, config: Config, classes: int, rngs: nnx.Rngs):
        self.config = config
        self.bert = Bert(config, rngs, pooler=False)
        self.classifier = Dense(config, {'embed': config.width}, {'': classes}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with a score for every class at every position."""
        out = self.bert(tokens, segments, valid, fold(key, 0))
        hidden = dropout(out.hidden_states[-1], self.config.dropout, fold(key, 1))
        logits = self.classifier(hidden.reshape(-1, hidden.shape[-1])).reshape(*tokens.shape, -1)
        return HeadOutput(*out, logits.astype(jnp.float32))


class BertFeatures(nnx.Module):
    """A class for each token from hidden states of a frozen BERT, by two layers of a BiLSTM (table 7 of the paper).

    Sums are weighted, by a softmax over layers times a factor, both learned (Peters et al. 2018, equation 1).
    """

    def __init__(self, config: Config, classes: int, features: str, lstm: int, rngs: nnx.Rngs):
        self.features = features
        self.bert = Bert(config, rngs, pooler=False)
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
        """As `BertForTokenClassification`; the encoder has no dropout and gets no gradient."""
        out = self.bert(tokens, segments, valid)
        x = self._chosen(jax.lax.stop_gradient(out.hidden_states))
        valid = jnp.ones(tokens.shape, bool) if valid is None else valid
        x = self.lstm(dropout(x, self.bert.config.dropout, fold(key, 0)), valid)
        x = dropout(x, self.bert.config.dropout, fold(key, 1))
        logits = self.classifier(x.reshape(-1, x.shape[-1])).reshape(*tokens.shape, -1)
        return HeadOutput(*out, logits.astype(jnp.float32))

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


class BertForQuestionAnswering(nnx.Module):
    """BERT with two vectors, for the start and the end of the answer (section 4.2 of the paper)."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.bert = Bert(config, rngs, pooler=False)
        self.spans = Dense(config, {'embed': config.width}, {'': 2}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`, with scores of start and end at every position."""
        out = self.bert(tokens, segments, valid, key)
        hidden = out.hidden_states[-1]
        logits = self.spans(hidden.reshape(-1, hidden.shape[-1])).reshape(*tokens.shape, 2)
        return HeadOutput(*out, logits.astype(jnp.float32))


class BertEncoder(nnx.Module):
    """BERT without a head."""

    def __init__(self, config: Config, rngs: nnx.Rngs, pooler: bool = True):
        self.bert = Bert(config, rngs, pooler)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`."""
        return HeadOutput(*self.bert(tokens, segments, valid, key), None)
