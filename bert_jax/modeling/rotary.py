"""Rotary position embedding (Su et al. 2021)."""

import jax
import jax.numpy as jnp


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Apply the rotary position embedding (Su et al. 2021, section 3.2.2) to [B, N, T, H].

    Entry i of the first half of a head pairs with entry i of the second half.
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, :, None].astype(jnp.float32) * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
