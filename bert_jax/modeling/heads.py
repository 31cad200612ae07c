"""Heads for downstream tasks on any base model, and the lookup and logits of the tied token embedding."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core import partitioning
from bert_jax.modeling import cpu_decoding
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.layers import ACTIVATIONS, Dense, Norm, token_embedding
from bert_jax.modeling.losses import sequence_loss
from bert_jax.modeling.module import Bias, Rngs


class Output(NamedTuple):
    """Output of a model.

    Attributes:
      hidden_states: L+1 arrays [B, T, D]: the embeddings and the output of each layer; those of the decoder in
        an encoder-decoder.
      pooled: [B, D] vector of each row; None without a pooler, or if the head does not use it.
      logits: float32 logits of the head: [B, T, V] for language models, [B, classes] for classes of a row,
        [B, T, classes] for classes of tokens, [B, T] for the detection of replaced tokens, [B, T, 2] for start and end
        of a span; None without a head.
      next_sentence: [B, 2] logits (is next, is random) of next-sentence prediction, or None.
      encoder_hidden_states: L+1 arrays [B, S, D] of the encoder in an encoder-decoder, or None.
      attentions: L arrays [B, N, T, T], float32: the weight that each query (third axis) gives to each key; those of
        the decoder in an encoder-decoder; None unless requested, see `train.model.Model`.
      encoder_attentions: L arrays [B, N, S, S] of the encoder in an encoder-decoder, or None.
      cross_attentions: L arrays [B, N, T, S] of the decoder's attention to the encoder, or None.
    """

    hidden_states: tuple[jax.Array, ...]
    pooled: Any = None
    logits: Any = None
    next_sentence: Any = None
    encoder_hidden_states: Any = None
    attentions: Any = None
    encoder_attentions: Any = None
    cross_attentions: Any = None


def embed_tokens(embedding: nnx.Param, tokens: jax.Array) -> jax.Array:
    """Look up the vectors [B, T, D] of token ids [B, T] in the token embedding."""
    return partitioning.map_shards(lambda table, ids: table[ids], embedding[...], tokens)


def vocabulary_logits(
    hidden: jax.Array, embedding: nnx.Param, config: ModelConfig, bias: jax.Array | None = None
) -> jax.Array:
    """Map hidden states [..., D] to float32 logits [..., V] with the token embedding or an output embedding."""
    table = embedding[...].astype(hidden.dtype)
    logits = cpu_decoding.matmul(hidden, table, transposed=True, dtype=jnp.float32)
    return (logits if bias is None else logits + bias)[..., : config.vocab_size]


def vocabulary_bias(config: ModelConfig, bias: jax.Array | None = None) -> jax.Array:
    """Return `bias` [V] (None means zeros), with -1e9 at the padding entries of the vocabulary."""
    is_entry = jnp.arange(config.padded_vocab) < config.vocab_size
    return jnp.where(is_entry, jnp.float32(0) if bias is None else bias, -1e9)


def head_logits(dense: Dense, hidden: jax.Array) -> jax.Array:
    """Apply a dense layer, in float32, to hidden states [..., D] and return logits [..., classes]."""
    logits = dense(hidden.reshape(-1, hidden.shape[-1]).astype(jnp.float32))
    return logits.reshape(*hidden.shape[:-1], -1)


class PredictionHead(nnx.Module):
    """Dense layer, activation and norm, [M, D] to [M, D] or [M, width]: the beginning of BERT's masked-LM head."""

    def __init__(self, config: ModelConfig, rngs: Rngs, width: int = 0):
        self.activation = ACTIVATIONS[config.activation]
        sizes = {'embed': config.width}, {'': width or config.width}
        self.dense = Dense(config, *sizes, rngs, use_bias=config.use_bias or config.head_bias)
        self.norm = Norm(config, rngs, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.activation(self.dense(x)))


def _apply(head: PredictionHead | None, hidden: jax.Array) -> jax.Array:
    """Apply a prediction head, if there is one, to hidden states [..., D]."""
    return hidden if head is None else head(hidden.reshape(-1, hidden.shape[-1])).reshape(hidden.shape)


def _classifier(config: ModelConfig, classes: int, rngs: Rngs) -> Dense:
    return Dense(config, {'embed': config.width}, {'': classes}, rngs, use_bias=True)


class Encoder(nnx.Module):
    """A base model (BERT, GPT or BART) without a head; also the base class of models with a head.

    `config.base_model` builds the base model. It is stored as the attribute `config.name`, so that parameter
    paths begin with 'bert/', for example. A base model has two methods: `encode` returns hidden states and a
    pooled vector for each row, `encode_pooled` returns only the vectors.
    """

    def __init__(self, config: ModelConfig, rngs: Rngs, pooler: bool = False):
        self.config = config
        setattr(self, config.name, config.base_model(rngs, pooler))

    @property
    def base_model(self) -> Any:
        return getattr(self, self.config.name)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Run the model with its head; arguments as in `Bert`."""
        out = self.base_model.encode(tokens, segments, valid, self._encoder_key(key))
        return self._apply_head(out, valid, key)

    def _encoder_key(self, key: jax.Array | None) -> jax.Array | None:
        """Return the random key of dropout in the base model; `key` is that of the whole model."""
        return fold_in(key, 0)

    def _apply_head(self, out: Output, valid: jax.Array | None, key: jax.Array | None) -> Output:
        """Return `out`, the base model's output, with the head's logits; `valid`, `key` as in `__call__`."""
        return out


class LanguageModel(Encoder):
    """A base model with a language-model head.

    Attributes:
      head: prediction head between the base model and the output embedding, or None.
      output_embedding: output embedding [V, D]; None if the head shares the token embedding.
      logits_bias: output bias [V], or None.
    """

    def __init__(self, config: ModelConfig, rngs: Rngs, bias: bool = False):
        super().__init__(config, rngs)
        self.head = PredictionHead(config, rngs) if config.prediction_head else None
        self.output_embedding = None if config.tied_embeddings else token_embedding(config, rngs)
        has_bias = bias or config.prediction_head
        self.logits_bias = Bias(jnp.zeros(config.padded_vocab), axes=('vocab',)) if has_bias else None

    def __call__(self, *args: Any, **kwargs: Any) -> Output:
        """Run the base model and compute the logits of the next tokens; arguments as in the base model."""
        out = self.base_model(*args, **kwargs)
        return out._replace(logits=self._logits(out.hidden_states[-1]))

    @property
    def _table(self) -> nnx.Param:
        """The output embedding [V, D]."""
        return self.base_model.token_embedding if self.output_embedding is None else self.output_embedding

    def _features(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states [..., D] to the vectors [..., D] that the output embedding multiplies."""
        features = _apply(self.head, hidden)
        return features * self.config.width**-0.5 if self.config.scale_logits else features

    def _logits(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states [..., D] to logits [..., V], float32."""
        bias = None if self.logits_bias is None else self.logits_bias[...]
        return vocabulary_logits(self._features(hidden), self._table, self.config, bias)

    def token_loss(self, hidden: jax.Array, labels: jax.Array, chunk: int = 0) -> tuple[jax.Array, jax.Array]:
        """Apply `sequence_loss` to hidden states [B, T, D] and `labels` [B, T]."""
        bias = vocabulary_bias(self.config, None if self.logits_bias is None else self.logits_bias[...])
        return sequence_loss(self._features(hidden), self._table[...], bias, labels, chunk)


class ForClassification(Encoder):
    """Classification of rows, from the pooled vector (section 4.1 of the BERT paper)."""

    def __init__(self, config: ModelConfig, classes: int, rngs: Rngs):
        super().__init__(config, rngs, pooler=True)
        self.classifier = _classifier(config, classes, rngs)

    def _apply_head(self, out: Output, valid: jax.Array | None, key: jax.Array | None) -> Output:
        return out._replace(logits=self._logits(out.pooled, key))

    def class_logits(self, batch: Mapping[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """Compute the logits from the pooled vectors alone, which takes less time than a call.

        Args:
          batch: arrays `tokens`, `segments` and `valid`, each [B, T]; for packed rows, also `starts` [B, K] or
            [B, K, E], see `data.packing.pack_row`.
          key: random key of dropout; None disables dropout.

        Returns:
          [B, classes], or for packed rows [B, K, classes] or [B, K, E, classes].
        """
        inputs = (batch['tokens'], batch['segments'], batch['valid'], fold_in(key, 0))
        if 'starts' not in batch:
            return self._logits(self.base_model.encode_pooled(*inputs), key)
        starts = batch['starts']
        pooled = self.base_model.encode_pooled(*inputs, starts.reshape(starts.shape[0], -1))
        return self._logits(pooled.reshape(*starts.shape, -1), key)

    def _logits(self, pooled: jax.Array, key: jax.Array | None) -> jax.Array:
        return head_logits(self.classifier, dropout(pooled, self.config.dropout, fold_in(key, 1)))


class ForTokenClassification(Encoder):
    """Classification of tokens, from the last hidden states (section 5.3 of the BERT paper)."""

    def __init__(self, config: ModelConfig, classes: int, rngs: Rngs):
        super().__init__(config, rngs)
        self.head = PredictionHead(config, rngs) if config.prediction_head else None
        self.classifier = _classifier(config, classes, rngs)

    def _apply_head(self, out: Output, valid: jax.Array | None, key: jax.Array | None) -> Output:
        hidden = dropout(_apply(self.head, out.hidden_states[-1]), self.config.dropout, fold_in(key, 1))
        return Output(out.hidden_states, logits=head_logits(self.classifier, hidden))


class ForQuestionAnswering(Encoder):
    """Extractive question answering: start and end logits of each token (section 4.2 of the BERT paper)."""

    def __init__(self, config: ModelConfig, rngs: Rngs):
        super().__init__(config, rngs)
        self.head = PredictionHead(config, rngs) if config.prediction_head else None
        self.span_classifier = _classifier(config, 2, rngs)

    def _encoder_key(self, key: jax.Array | None) -> jax.Array | None:
        return key  # the head has no dropout

    def _apply_head(self, out: Output, valid: jax.Array | None, key: jax.Array | None) -> Output:
        hidden = _apply(self.head, out.hidden_states[-1])
        return Output(out.hidden_states, logits=head_logits(self.span_classifier, hidden))
