"""Dropout as a function: no key, no dropout."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes a share `rate` of the entries and scales up the rest (Srivastava et al. 2014)."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def fold(key: jax.Array | None, index: int | jax.Array) -> jax.Array | None:
    """A key of one's own for part `index`, or None."""
    return None if key is None else jax.random.fold_in(key, index)
