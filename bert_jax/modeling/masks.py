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
      query_documents: [B, Tq] integers, the document of each query; None lets queries attend to all documents.
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
                allowed &= self.query_documents[:, None, :, None] == self.key_documents[:, None, None, :]
        if self.causal or self.window:
            distance = jnp.arange(keys) - jnp.arange(queries)[:, None]
            near = jnp.abs(distance) <= (self.window or keys)
            near = (near & (distance <= 0) if self.causal else near)[None, None]
            allowed = near if allowed is None else near & allowed
        return allowed


def padding(valid: jax.Array) -> Mask:
    """Create a mask in which every token attends to every real token of its document.

    Args:
      valid: [B, T] booleans, false on padding, if each row is one document; for packed rows, integers: the
        document of each token, counted from 1, and 0 on padding.
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


def select_last(x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Select the entry of the last real token of each row, [B, T, ...] to [B, ...]; `valid` as in `padding`."""
    if valid is None:
        return x[:, -1]
    last = jnp.where(valid.astype(bool), jnp.arange(x.shape[1]), 0).max(1)
    return x[jnp.arange(len(x)), last]
