"""Dropout as a pure function."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero each entry with probability `rate` and scale up the rest (Srivastava et al. 2014).

    Without a key, return `x`.
    """
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def fold_in(key: jax.Array | None, index: int | jax.Array) -> jax.Array | None:
    """Derive a new random key from `key` and `index`; None stays None."""
    return None if key is None else jax.random.fold_in(key, index)
