"""Heads on an encoder: masked LM with next sentence, and one class for a text or a pair."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.bert import Bert, Config
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.layers import ACTIVATIONS, Dense, Norm, param


class HeadOutput(NamedTuple):
    """An encoder's output with that of its head.

    Attributes:
      hidden_states: L+1 arrays [B, T, D].
      pooled: [B, D].
      logits: the head's float32 scores: [B, P, V] of masked LM, [B, classes] of classification.
      next_sentence: [B, 2] scores (is next, is random) of a pretraining model, or None.
    """

    hidden_states: tuple[jax.Array, ...]
    pooled: jax.Array
    logits: jax.Array
    next_sentence: jax.Array | None = None


class MaskedLM(nnx.Module):
    """Dense, activation, norm, then the transposed word embeddings with a bias of their own."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        c = self.config = config
        self.dense = Dense(c, {'embed': c.width}, {'': c.width}, rngs)
        self.norm = Norm(c, rngs)
        self.bias = param(rngs, (c.padded_vocab,), ('vocab',), 0)

    def __call__(self, x: jax.Array, words: jax.Array) -> jax.Array:
        """[M, D] and the word embeddings [V, D] to scores [M, V] in float32."""
        c = self.config
        x = self.norm(ACTIVATIONS[c.activation](self.dense(x)))
        bias = jnp.where(jnp.arange(c.padded_vocab) < c.vocab_size, self.bias[...], -1e9)
        scores = jax.lax.dot_general(
            x, words.astype(x.dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return scores + bias


class BertForPretraining(nnx.Module):
    """BERT with the heads of sections 3.1: masked LM and next-sentence prediction."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.bert = Bert(config, rngs)
        self.masked_lm = MaskedLM(config, rngs)
        self.next_sentence = Dense(config, {'embed': config.width}, {'': 2}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        positions: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> HeadOutput:
        """As `Bert`; `positions` [B, P] are the ones to predict, None predicts every position."""
        out = self.bert(tokens, segments, valid, key)
        x = out.hidden_states[-1]
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], axis=1)
        logits = self.masked_lm(x.reshape(-1, x.shape[-1]), self.bert.words[...])
        nsp = self.next_sentence(out.pooled).astype(jnp.float32)
        return HeadOutput(*out, logits.reshape(*x.shape[:2], -1), nsp)


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
    ) -> HeadOutput:
        out = self.bert(tokens, segments, valid, fold(key, 0))
        logits = self.classifier(dropout(out.pooled, self.config.dropout, fold(key, 1)))
        return HeadOutput(*out, logits.astype(jnp.float32))
