"""Who may see whom, said by numbers of texts: a kernel takes these, and others make a boolean mask of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=['keys', 'queries'], meta_fields=['causal'])
@dataclasses.dataclass(frozen=True)
class Mask:
    """A token sees those of its own text, and no padding.

    Attributes:
      keys: [B, Tk] integers, which text each token is of that may be seen, 0 for padding; None is one text.
      queries: [B, Tq] of those that look; None sees all texts.
      causal: whether a token sees only itself and what stands before it; then Tq is Tk.
    """

    keys: jax.Array | None = None
    queries: jax.Array | None = None
    causal: bool = False

    @property
    def batch(self) -> int:
        """B, of a mask with keys."""
        assert self.keys is not None
        return len(self.keys)

    def array(self, queries: int, keys: int) -> jax.Array | None:
        """Booleans broadcastable to [B, 1, Tq, Tk], true where attention is allowed; None is everywhere."""
        found = None
        if self.keys is not None:
            found = (self.keys != 0)[:, None, None, :]
            if self.queries is not None:
                found &= self.queries[:, None, :, None] == self.keys[:, None, None, :]
        if self.causal:
            before = jnp.tril(jnp.ones((queries, keys), bool))[None, None]
            found = before if found is None else before & found
        return found


def causal(valid: jax.Array | None = None) -> Mask:
    """A token sees itself and what stands before it; `valid` as of `padding`, or None where every token is real."""
    return Mask(causal=True) if valid is None else dataclasses.replace(padding(valid), causal=True)


def last(length: int, valid: jax.Array | None, batch: int) -> jax.Array:
    """[B], the place of the last real token of each row of `length` tokens; `valid` as of `padding`."""
    if valid is None:
        return jnp.full(batch, length - 1)
    return jnp.where(valid.astype(bool), jnp.arange(length), 0).max(1)


def at_last(x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Of [B, T, ...] what stands at the last real token, [B, ...]."""
    return x[jnp.arange(len(x)), last(x.shape[1], valid, len(x))]


def padding(valid: jax.Array) -> Mask:
    """Every token sees every real token.

    Args:
      valid: [B, T] booleans, or integers that number the texts of a packed row from 1 with 0 for
        padding; then a token sees its own text only.
    """
    if valid.dtype == jnp.bool_:
        return Mask(valid.astype(jnp.int32))
    return Mask(valid, valid)
