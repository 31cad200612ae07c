"""Attention within a window of tokens (Beltagy et al. 2020, section 3.1), in time and memory proportional to T W."""

import jax
import jax.numpy as jnp

from bert_jax.modeling.dropout import dropout
from bert_jax.modeling.masks import Mask


def saves_work(mask: Mask, length: int) -> bool:
    """Return whether `attend` computes fewer scores than dense attention for rows of `length` tokens."""
    if not mask.window or not isinstance(length, int):  # unknown, as in `jax.export`
        return False
    return (2 if mask.causal else 3) * _block_size(mask.window) < length


def _block_size(window: int) -> int:
    """Return the number of queries in a block: at least the window, so that their keys lie in neighboring blocks."""
    return max(16, -(-window // 8) * 8)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Compute attention block by block: to the keys of the same block and its neighbors.

    Args:
      q: [B, N, T, H] queries.
      k: [B, K, T, H] keys; each of the K heads serves N / K consecutive query heads.
      v: [B, K, T, H] values.
      mask: mask with a `window`.
      dropout_rate: dropout rate of attention probabilities.
      key: random key of dropout; None disables dropout.

    Returns:
      [B, N, T, H] in the dtype of `q`. It is that of dense attention with this mask, except for queries that may
      attend to nothing, such as padding.
    """
    (batch, heads, length, _), size = q.shape, _block_size(mask.window)
    if k.shape[1] != heads:
        k, v = (jnp.repeat(x, heads // k.shape[1], axis=1) for x in (k, v))
    offsets = (-1, 0) if mask.causal else (-1, 0, 1)
    documents = jnp.ones((batch, length), jnp.int32) if mask.key_documents is None else mask.key_documents

    q_blocks = _to_blocks(q * q.shape[-1] ** -0.5, size)
    k_blocks, v_blocks = (_with_neighbors(_to_blocks(x, size), offsets) for x in (k, v))
    key_documents = _with_neighbors(_to_blocks(documents[:, None], size), offsets)[..., None, :]
    distance = jnp.arange(offsets[0] * size, size * (offsets[-1] + 1)) - jnp.arange(size)[:, None]
    allowed = (jnp.abs(distance) <= mask.window) & (key_documents != 0)
    if mask.causal:
        allowed &= distance <= 0
    if mask.query_documents is not None:
        allowed &= key_documents == _to_blocks(mask.query_documents[:, None], size)[..., None]

    scores = jnp.einsum('bnsqh,bnskh->bnsqk', q_blocks, k_blocks, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(allowed, scores, jnp.finfo(jnp.float32).min), axis=-1).astype(q.dtype)
    if key is not None and dropout_rate > 0:
        weights = dropout(weights, dropout_rate, key, ('batch', 'heads'))
    y = jnp.einsum('bnsqk,bnskh->bnsqh', weights, v_blocks)
    return y.reshape(*q.shape[:2], -1, q.shape[-1])[:, :, :length]


def _to_blocks(x: jax.Array, size: int) -> jax.Array:
    """Cut [B, N, T, ...] into blocks, [B, N, S, size, ...], padded with zeros."""
    x = jnp.pad(x, [(0, 0), (0, 0), (0, -x.shape[2] % size)] + [(0, 0)] * (x.ndim - 3))
    return x.reshape(*x.shape[:2], -1, size, *x.shape[3:])


def _with_neighbors(x: jax.Array, offsets: tuple[int, ...]) -> jax.Array:
    """Join each block of [B, N, S, size, ...] with its neighbors, in order; beyond the ends they are zeros."""
    blocks = x.shape[2]
    padded = jnp.pad(x, [(0, 0), (0, 0), (-offsets[0], offsets[-1])] + [(0, 0)] * (x.ndim - 3))
    return jnp.concatenate([padded[:, :, i : i + blocks] for i in range(len(offsets))], axis=3)
