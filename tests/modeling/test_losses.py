"""Gradients of half-precision models that are sums over a loop are added in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.modeling import losses, module
from bert_jax.modeling.lstm import Lstm
from tests.modeling import tiny


def relative_error(found, exact):
    return float(jnp.linalg.norm(found.astype(jnp.float32) - exact) / jnp.linalg.norm(exact))


def test_gradients_of_chunks_of_the_vocabulary_loss():
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.standard_normal((4, 512, 8)), jnp.bfloat16)
    table, bias = jnp.asarray(rng.standard_normal((16, 8)), jnp.float32), jnp.zeros(16)
    table = table.astype(jnp.bfloat16).astype(jnp.float32)
    labels = jnp.asarray(rng.integers(0, 16, (4, 512)))

    @jax.jit
    def gradients(hidden):
        return jax.grad(lambda t: losses.sequence_loss(hidden, t, bias, labels, 2)[0].sum())(table)

    assert relative_error(gradients(hidden), gradients(hidden.astype(jnp.float32))) < 0.01


def test_gradients_of_the_steps_of_an_lstm():
    make = functools.partial(Lstm, tiny.config(), 8, 5)
    graph, params = module.split(make(module.Rngs(0)))
    x = np.random.default_rng(0).standard_normal((2, 400, 8)).astype(np.float32)

    def gradient(dtype):
        def total(params):
            out = module.merge(graph, params)(jnp.asarray(x, dtype), np.ones((2, 400), bool), False)
            return out.astype(jnp.float32).sum()

        return jax.jit(jax.grad(total))(params)['recurrent_kernel']

    assert relative_error(gradient(jnp.bfloat16), gradient(jnp.float32)) < 0.02
