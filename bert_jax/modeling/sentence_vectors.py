"""Vectors of texts: pooling of the last hidden states, and losses of pairs of vectors."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import masks, module, pooling
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.heads import Encoder
from bert_jax.modeling.layers import Dense
from bert_jax.modeling.losses import cross_entropy

Pooling = Literal['mean', 'cls', 'max', 'last', 'weighted']


def pool(hidden: jax.Array, valid: jax.Array | None, kind: Pooling) -> jax.Array:
    """Reduce the hidden states of each text to one vector.

    Args:
      hidden: [B, T, D] last hidden states.
      valid: [B, T] booleans, false on padding; None means all true.
      kind: 'mean', the mean over the tokens; 'cls', the first token; 'max', the largest value of each dimension; 'last',
        the last token; 'weighted', the mean with weights 1, 2, 3, ... (Muennighoff 2022, arXiv 2202.08904, section 3.1).

    Returns:
      [B, D] float32.
    """
    hidden = hidden.astype(jnp.float32)
    if kind == 'cls':
        return hidden[:, 0]
    if kind == 'last':
        return masks.select_last(hidden, valid)
    if kind == 'mean':
        return pooling.mean(hidden, valid)
    is_token = jnp.ones(hidden.shape[:2], bool) if valid is None else valid.astype(bool)
    if kind == 'max':
        return jnp.where(is_token[..., None], hidden, -jnp.inf).max(1)
    weights = jnp.where(is_token, jnp.arange(1.0, hidden.shape[1] + 1), 0.0)
    return jnp.einsum('btd,bt->bd', hidden, weights / weights.sum(1, keepdims=True))


def normalize(vectors: jax.Array) -> jax.Array:
    """Scale vectors [..., D] to length 1."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def ranking_loss(
    anchors: jax.Array, candidates: jax.Array, is_candidate: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Compute the softmax cross-entropy of the right candidate of each anchor (Gao et al. 2021, arXiv 2104.08821, equation 5).

    Args:
      anchors: [B, D] vectors.
      candidates: [C, D] vectors, C >= B, of which the one with the number of an anchor belongs to it.
      is_candidate: [C] booleans; others are left out.
      temperature: divisor of the cosine similarities.

    Returns:
      [B] losses, and [B] booleans: whether the right candidate is the most similar one.
    """
    logits = normalize(anchors) @ normalize(candidates).T / temperature
    logits = jnp.where(is_candidate, logits, -1e9)
    labels = jnp.arange(len(anchors))
    return cross_entropy(logits, labels), logits.argmax(1) == labels


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the cosine similarities of vectors [..., D]."""
    return (normalize(a) * normalize(b)).sum(-1)


class ForEmbedding(Encoder):
    """An encoder that maps texts to vectors.

    Attributes:
      classifier: for classification of pairs, a dense layer on (u, v, |u - v|) (Reimers & Gurevych 2019, section 3); else
        None.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, kind: Pooling = 'mean', classes: int = 0):
        super().__init__(config, rngs)
        self.kind = kind
        sizes = {'': 3 * config.width}, {'': classes}
        self.classifier = Dense(config, *sizes, rngs, use_bias=True) if classes else None

    def vectors(self, tokens: jax.Array, valid: jax.Array | None, key: jax.Array | None = None) -> jax.Array:
        """Compute the vectors [B, D], float32, of texts [B, T]."""
        out = self.base_model.encode(tokens, None, valid, self._encoder_key(key))
        return pool(out.hidden_states[-1], valid, self.kind)

    def vectors_in_chunks(
        self, tokens: jax.Array, valid: jax.Array, key: jax.Array | None, chunks: int
    ) -> jax.Array:
        """Compute the same vectors in several chunks, which store no activations (Gao et al. 2021, arXiv 2101.06983).

        The backward pass computes the activations of a chunk again, so that a batch needs the memory of one chunk.
        """
        graph, params = module.split(self)

        @jax.checkpoint
        def encode(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            number, *texts = inputs
            chunk_key = None if key is None else jax.random.fold_in(key, number)
            return module.merge(graph, params).vectors(*texts, chunk_key)

        def split(x: jax.Array) -> jax.Array:  # each device keeps its rows
            return x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1)

        found: Any = jax.lax.map(encode, (jnp.arange(chunks), split(tokens), split(valid)))
        return found.swapaxes(0, 1).reshape(len(tokens), -1)
