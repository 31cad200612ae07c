"""A bidirectional LSTM (Hochreiter & Schmidhuber 1997), for features of a frozen encoder."""

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.config import BlockConfig
from bert_jax.modeling.layers import Dense, param


class Lstm(nnx.Module):
    """One layer in one direction; its state does not change at padding."""

    def __init__(self, config: BlockConfig, inputs: int, width: int, rngs: nnx.Rngs):
        self.width = width
        self.enter = Dense(config, {'': inputs}, {'mlp': 4 * width}, rngs)
        self.again = param(rngs, (width, 4 * width), (None, 'mlp'), width**-0.5)

    def __call__(self, x: jax.Array, valid: jax.Array, reverse: bool) -> jax.Array:
        """[B, T, D] to [B, T, H]; `valid` is [B, T]."""
        batch, length, _ = x.shape
        entered = self.enter(x.reshape(batch * length, -1)).reshape(batch, length, -1)
        kernel = self.again[...].astype(x.dtype)

        def step(
            state: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            h, c = state
            given, real = inputs
            i, f, g, o = jnp.split(given + h @ kernel, 4, -1)
            new = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)  # it begins by remembering
            out = jax.nn.sigmoid(o) * jnp.tanh(new)
            real = real[:, None]
            return (jnp.where(real, out, h), jnp.where(real, new, c)), out

        zeros = jnp.zeros((batch, self.width), x.dtype)
        _, out = jax.lax.scan(step, (zeros, zeros), (entered.swapaxes(0, 1), valid.T), reverse=reverse)
        return out.swapaxes(0, 1)


class BiLstm(nnx.Module):
    """Layers of one LSTM in each direction, their outputs side by side."""

    def __init__(self, config: BlockConfig, inputs: int, width: int, layers: int, rngs: nnx.Rngs):
        sizes = [inputs] + [2 * width] * (layers - 1)
        self.forward = nnx.List([Lstm(config, n, width, rngs) for n in sizes])
        self.backward = nnx.List([Lstm(config, n, width, rngs) for n in sizes])

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """[B, T, D] to [B, T, 2 H]."""
        for a, b in zip(self.forward, self.backward, strict=True):
            x = jnp.concatenate([a(x, valid, False), b(x, valid, True)], -1)
        return x
