"""Who may see whom: boolean masks [B, 1, Tq or 1, Tk], true where attention is allowed."""

import jax
import jax.numpy as jnp


def causal(length: int, valid: jax.Array | None = None) -> jax.Array:
    """A token sees itself and what stands before it.

    Args:
      length: T.
      valid: as of `padding`, or None where every token is real.

    Returns:
      [1, 1, T, T], or [B, 1, T, T] with `valid`.
    """
    before = jnp.tril(jnp.ones((length, length), bool))[None, None]
    return before if valid is None else before & padding(valid)


def last(length: int, valid: jax.Array | None, batch: int) -> jax.Array:
    """[B], the place of the last real token of each row of `length` tokens; `valid` as of `padding`."""
    if valid is None:
        return jnp.full(batch, length - 1)
    return jnp.where(valid.astype(bool), jnp.arange(length), 0).max(1)


def at_last(x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Of [B, T, ...] what stands at the last real token, [B, ...]."""
    return x[jnp.arange(len(x)), last(x.shape[1], valid, len(x))]


def padding(valid: jax.Array) -> jax.Array:
    """Every token sees every real token.

    Args:
      valid: [B, T] booleans, or integers that number the texts of a packed row from 1 with 0 for
        padding; then a token sees its own text only.

    Returns:
      [B, 1, 1, T] for booleans, [B, 1, T, T] for numbered texts.
    """
    if valid.dtype == jnp.bool_:
        return valid[:, None, None, :]
    same = valid[:, None, :, None] == valid[:, None, None, :]
    return same & (valid != 0)[:, None, None, :]
