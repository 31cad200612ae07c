"""Attention masks, stored as the number of the document that each token belongs to.

Kernels take either these numbers or a boolean array made from them.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Attention mask in which a query attends to the real tokens of its document.

    Attributes:
      key_documents: [B, Tk] integers, the document of each key, 0 for padding; None means one document
        without padding.
      query_documents: [B, Tq] integers, the document of each query; None lets queries attend to all documents, and
        promises that padding is at the end of the row.
      causal: whether a query attends only to itself and earlier tokens; requires Tq = Tk.
      window: largest distance in tokens between a query and the keys that it attends to, W; 0 is no limit. Requires
        Tq = Tk.
    """

    key_documents: jax.Array | None = None
    query_documents: jax.Array | None = None
    causal: bool = dataclasses.field(default=False, metadata={'static': True})
    window: int = dataclasses.field(default=0, metadata={'static': True})

    def to_array(self, queries: int, keys: int) -> jax.Array | None:
        """Return booleans broadcastable to [B, 1, Tq, Tk], true where attention is allowed; None if everywhere."""
        allowed = None
        if self.key_documents is not None:
            allowed = (self.key_documents != 0)[:, None, None, :]
            if self.query_documents is not None:
                is_same = self.query_documents[:, None, :, None] == self.key_documents[:, None, None, :]
                allowed = allowed & is_same
        if self.causal or self.window:
            distance = jnp.arange(keys) - jnp.arange(queries)[:, None]
            near = jnp.abs(distance) <= (self.window or keys)
            near = (near & (distance <= 0) if self.causal else near)[None, None]
            allowed = near if allowed is None else near & allowed
        return allowed


def padding(valid: jax.Array) -> Mask:
    """Create a mask in which every token attends to every real token of its document.

    Args:
      valid: [B, T] booleans, false on the padding at the end of each row, if each row is one document; for packed rows,
        integers: the document of each token, counted from 1, and 0 on padding, which may be anywhere.
    """
    if valid.dtype == jnp.bool_:
        return Mask(valid.astype(jnp.int32))
    return Mask(valid, valid)


def causal(valid: jax.Array | None = None) -> Mask:
    """Create a mask in which a token attends to itself and to earlier tokens of its document.

    Args:
      valid: as in `padding`; None means that each row is one document without padding.
    """
    return Mask(causal=True) if valid is None else dataclasses.replace(padding(valid), causal=True)


def restart_positions(documents: jax.Array) -> jax.Array:
    """Count the positions [B, T] of tokens from the start of their document; 0 on padding. `documents` as in `Mask`."""
    index = jnp.arange(documents.shape[1])
    is_first = documents != jnp.pad(documents, ((0, 0), (1, 0)))[:, :-1]
    starts = jax.lax.cummax(jnp.where(is_first, index, 0), axis=1)
    return jnp.where(documents > 0, index - starts, 0)


def last_positions(documents: jax.Array) -> jax.Array:
    """Return [B, T], for each token the position in the row of the last token of its document."""
    index = jnp.arange(documents.shape[1])
    is_last = documents != jnp.pad(documents, ((0, 0), (0, 1)), constant_values=-1)[:, 1:]
    return jax.lax.cummin(jnp.where(is_last, index, documents.shape[1]), axis=1, reverse=True)


def select_queries(mask: Mask | jax.Array | None, positions: jax.Array, keys: int) -> Mask | jax.Array | None:
    """Return the mask of the queries at `positions` [B, P] of rows of `keys` tokens.

    A `Mask` that is the same for all queries is returned as it is; others become booleans [B, 1, P, Tk].
    """
    if isinstance(mask, Mask):
        if mask.query_documents is None and not (mask.causal or mask.window):
            return mask
        mask = mask.to_array(keys, keys)
    if mask is None or mask.shape[2] == 1:
        return mask
    mask = jnp.broadcast_to(mask, (positions.shape[0], *mask.shape[1:]))
    return jnp.take_along_axis(mask, positions[:, None, :, None], axis=2)


def select(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Select the entries of `x` [B, T, ...] at `positions` [B, P], giving [B, P, ...]."""
    return jnp.take_along_axis(x, positions.reshape(*positions.shape, *[1] * (x.ndim - 2)), axis=1)


def separate_texts(
    x: jax.Array, documents: jax.Array, starts: jax.Array, length: int
) -> tuple[jax.Array, jax.Array]:
    """Cut packed rows into texts.

    Args:
      x: [B, T, ...] entries of the tokens.
      documents: [B, T] numbers of the texts, 0 on padding.
      starts: [B, K] positions of the first tokens of the texts.
      length: L, number of tokens to return of each text.

    Returns:
      The entries of the texts, [B, K, L, ...], and [B, K, L] booleans, false after the end of a text.
    """
    positions = starts[..., None] + jnp.arange(length)
    is_real = positions <= select(last_positions(documents), starts)[..., None]
    flat = jnp.minimum(positions, x.shape[1] - 1).reshape(x.shape[0], -1)
    return select(x, flat).reshape(*positions.shape, *x.shape[2:]), is_real


def select_last(x: jax.Array, valid: jax.Array | None, starts: jax.Array | None = None) -> jax.Array:
    """Select the entries of the last real tokens.

    Args:
      x: [B, T, ...] entries of the tokens.
      valid: as in `padding`.
      starts: [B, K] positions of the first tokens of the texts in packed rows, for which `valid` has integers.

    Returns:
      The entry of the last token of each row, [B, ...], or of each text, [B, K, ...].
    """
    if valid is None:
        return x[:, -1]
    if starts is not None:
        return select(x, select(last_positions(valid), starts))
    last = jnp.where(valid.astype(bool), jnp.arange(x.shape[1]), 0).max(1)
    return select(x, last[:, None])[:, 0]
