"""A bidirectional LSTM (Hochreiter & Schmidhuber 1997), used on the features of a frozen encoder."""

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.layers import Dense, param
from bert_jax.modeling.module import Rngs


class Lstm(nnx.Module):
    """One LSTM layer in one direction; it starts anew with each text of a packed row."""

    def __init__(self, config: ModelConfig, inputs: int, width: int, rngs: Rngs):
        self.width = width
        self.input_projection = Dense(config, {'': inputs}, {'mlp': 4 * width}, rngs)
        self.recurrent_kernel = param(rngs, (width, 4 * width), (None, 'mlp'), width**-0.5)

    def __call__(self, x: jax.Array, valid: jax.Array, reverse: bool) -> jax.Array:
        """Map inputs [B, T, D] to outputs [B, T, H]; `valid` [B, T] is that of `masks.padding`."""
        batch, length, _ = x.shape
        documents = valid.astype(jnp.int32)
        before = jnp.pad(documents, ((0, 0), (0, 1) if reverse else (1, 0)))
        continues = documents == (before[:, 1:] if reverse else before[:, :-1])
        projected = self.input_projection(x.reshape(batch * length, -1)).reshape(batch, length, -1)
        kernel = self.recurrent_kernel[...]

        def step(
            state: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            projected, continues = inputs
            h, c = (jnp.where(continues[:, None], part, 0) for part in state)
            # The cast is inside the scan, so that the gradients of all steps are added in float32.
            i, f, g, o = jnp.split(projected + h @ kernel.astype(x.dtype), 4, -1)
            # The forget bias of 1 makes the initial LSTM remember (Jozefowicz et al. 2015).
            new_c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            return (new_h, new_c), new_h

        zeros = jnp.zeros((batch, self.width), x.dtype)
        _, out = jax.lax.scan(step, (zeros, zeros), (projected.swapaxes(0, 1), continues.T), reverse=reverse)
        return out.swapaxes(0, 1)


class BiLstm(nnx.Module):
    """A stack of LSTM layers in both directions; each layer concatenates the outputs of both."""

    def __init__(self, config: ModelConfig, inputs: int, width: int, layers: int, rngs: Rngs):
        sizes = [inputs] + [2 * width] * (layers - 1)
        self.forward = nnx.List([Lstm(config, n, width, rngs) for n in sizes])
        self.backward = nnx.List([Lstm(config, n, width, rngs) for n in sizes])

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Map inputs [B, T, D] to outputs [B, T, 2 H]; `valid` [B, T] is that of `masks.padding`."""
        for forward, backward in zip(self.forward, self.backward, strict=True):
            x = jnp.concatenate([forward(x, valid, False), backward(x, valid, True)], -1)
        return x
