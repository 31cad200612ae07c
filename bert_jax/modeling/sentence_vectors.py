"""Vectors of texts or of their tokens: pooling of the last hidden states, and losses of pairs of vectors."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from bert_jax.modeling import masks, module, pooling
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.heads import Encoder
from bert_jax.modeling.layers import Dense
from bert_jax.modeling.losses import cross_entropy

Pooling = Literal['mean', 'cls', 'max', 'last', 'weighted', 'tokens']
Activation = Literal['identity', 'tanh']


def pool(
    hidden: jax.Array, valid: jax.Array | None, kind: Pooling, starts: jax.Array | None = None
) -> jax.Array:
    """Reduce the hidden states of each text to one vector, or keep those of its tokens.

    Args:
      hidden: [B, T, D] last hidden states.
      valid: [B, T] booleans, false on padding; None means all true. In packed rows, the number of the text of each token,
        from 1; 0 on padding.
      kind: 'mean', the mean over the tokens; 'cls', the first token; 'max', the largest value of each dimension; 'last',
        the last token; 'weighted', the mean with weights 1, 2, 3, ... (Muennighoff 2022, arXiv 2202.08904, section 3.1);
        'tokens', all hidden states, zero on padding.
      starts: [B, K] positions of the first tokens of the texts in packed rows; None means one text in each row. Only for
        'mean' and 'cls'.

    Returns:
      [B, D] float32, or [B, T, D] for 'tokens', or [B, K, D] for packed rows.
    """
    hidden = hidden.astype(jnp.float32)
    if kind == 'cls':
        return hidden[:, 0] if starts is None else jnp.take_along_axis(hidden, starts[..., None], axis=1)
    if kind == 'mean':
        return pooling.mean(hidden, valid, 0 if starts is None else starts.shape[1])
    if kind == 'last':
        return masks.select_last(hidden, valid)
    is_token = jnp.ones(hidden.shape[:2], bool) if valid is None else valid.astype(bool)
    if kind == 'tokens':
        return jnp.where(is_token[..., None], hidden, 0.0)
    if kind == 'max':
        return jnp.where(is_token[..., None], hidden, -jnp.inf).max(1)
    weights = jnp.where(is_token, jnp.arange(1.0, hidden.shape[1] + 1), 0.0)
    return jnp.einsum('btd,bt->bd', hidden, weights / weights.sum(1, keepdims=True))


def normalize(vectors: jax.Array) -> jax.Array:
    """Scale vectors [..., D] to length 1."""
    squares = jnp.square(vectors).sum(-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))  # zeros have a gradient of zero, not NaN


def max_similarity(queries: jax.Array, passages: jax.Array) -> jax.Array:
    """Sum the largest cosine of each query token with a passage token (MaxSim; Khattab & Zaharia 2020, arXiv 2004.12832).

    Args:
      queries: [Q, T, D] vectors of tokens, zero on padding.
      passages: [P, S, D] vectors of tokens, zero on padding.

    Returns:
      [Q, P] similarities.
    """
    cosines = jnp.einsum('qtd,psd->qpts', normalize(queries), normalize(passages))
    is_token = (passages != 0).any(-1)[:, None]
    return jnp.where(is_token, cosines, -1e9).max(-1).sum(-1, where=(queries != 0).any(-1)[:, None])


def similarities(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the similarity of each of A texts with each of B, [A, B].

    The similarity is the cosine of vectors [A, D] and [B, D], or `max_similarity` of vectors of tokens.
    """
    return max_similarity(a, b) if a.ndim == 3 else normalize(a) @ normalize(b).T


def ranking_loss(
    anchors: jax.Array, candidates: jax.Array, is_candidate: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Compute the softmax cross-entropy of the right candidate of each anchor (Gao et al. 2021, arXiv 2104.08821, equation 5).

    Args:
      anchors: [B, D] vectors, or [B, T, D] vectors of tokens.
      candidates: [C, D] vectors, or [C, S, D], C >= B, of which the one with the number of an anchor belongs to it.
      is_candidate: [C] booleans; others are left out.
      temperature: divisor of the similarities.

    Returns:
      [B] losses, and [B] booleans: whether the right candidate is the most similar one.
    """
    logits = similarities(anchors, candidates) / temperature
    logits = jnp.where(is_candidate, logits, -1e9)
    labels = jnp.arange(len(anchors))
    return cross_entropy(logits, labels), logits.argmax(1) == labels


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the cosine similarities of vectors [..., D]."""
    return (normalize(a) * normalize(b)).sum(-1)


class ForEmbedding(Encoder):
    """An encoder that maps texts to vectors.

    Attributes:
      width: width of the vectors, D.
      projection: dense layer on the vectors, followed by the activation, if `width` was set; else None.
      classifier: for classification of pairs, a dense layer on (u, v, |u - v|) (Reimers & Gurevych 2019, section 3); else
        None.
    """

    def __init__(
        self,
        config: ModelConfig,
        rngs: module.Rngs,
        kind: Pooling = 'mean',
        classes: int = 0,
        width: int = 0,
        activation: Activation = 'identity',
    ):
        super().__init__(config, rngs)
        self.kind, self.width, self.activation = kind, width or config.width, activation
        sizes = {'embed': config.width}, {'': width}
        self.projection = Dense(config, *sizes, rngs, use_bias=True) if width else None
        sizes = {'': 3 * self.width}, {'': classes}
        self.classifier = Dense(config, *sizes, rngs, use_bias=True) if classes else None

    def vectors(
        self,
        tokens: jax.Array,
        valid: jax.Array | None,
        key: jax.Array | None = None,
        starts: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the vectors [B, D], float32, of texts [B, T], those of their tokens, [B, T, D], or of packed texts, [B, K, D].

        Args:
          tokens, key: as in a call of the encoder.
          valid, starts: see `pool`.
        """
        out = self.base_model.encode(tokens, None, valid, self._encoder_key(key))
        vectors = pool(out.hidden_states[-1], valid, self.kind, starts)
        if self.projection is None:
            return vectors
        flat = self.projection(vectors.reshape(-1, vectors.shape[-1])).astype(jnp.float32)
        flat = jnp.tanh(flat) if self.activation == 'tanh' else flat
        vectors = flat.reshape(*vectors.shape[:-1], self.width)
        return pool(vectors, valid, 'tokens') if self.kind == 'tokens' else vectors

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
        return found.swapaxes(0, 1).reshape(len(tokens), *found.shape[2:])
