"""The BiLSTM equals its equations, and the feature-based tagger leaves its encoder frozen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.modeling import feature_based
from bert_jax.modeling.lstm import BiLstm
from tests.modeling import tiny
from tests.runs import slow_after

FEATURES = ('embeddings', 'second_to_last', 'last', 'sum_last_four', 'concat_last_four', 'sum_all')


def make(config, rngs):
    return BiLstm(config, 32, 5, 2, rngs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_reference(params, name, x):
    """One layer in one direction over one sequence [T, D]."""
    h, c, out = np.zeros(5), np.zeros(5), []
    for row in x:
        gates = (
            row @ params[f'{name}/input_projection/kernel']
            + params[f'{name}/input_projection/bias']
            + h @ params[f'{name}/recurrent_kernel']
        )
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def test_bilstm_equals_its_equations():
    x = np.random.default_rng(0).normal(size=(1, 6, 32)).astype(np.float32)
    _, params = tiny.graph_and_params(make)
    actual = tiny.model(make)(x, np.ones((1, 6), bool))[0]
    expected = x[0]
    for layer in range(2):
        forward = lstm_reference(params, f'forward/{layer}', expected)
        backward = lstm_reference(params, f'backward/{layer}', expected[::-1])[::-1]
        expected = np.concatenate([forward, backward], 1)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_padding_changes_nothing():
    x = np.random.default_rng(0).normal(size=(1, 9, 32)).astype(np.float32)
    run = tiny.model(make)
    unpadded = run(x[:, :6], np.ones((1, 6), bool))
    padded = run(x, np.arange(9)[None] < 6)
    np.testing.assert_allclose(padded[:, :6], unpadded, atol=1e-6)


def tagger(features):
    return functools.partial(feature_based.FeatureBasedTagger, classes=3, features=features, lstm_width=7)


@pytest.mark.parametrize('features', slow_after(2, reversed(FEATURES)))
def test_features_depend_on_the_selected_layers_and_pass_no_gradient(features):
    def make(config, rngs):
        return tagger(features)(config, rngs=rngs)

    graph, params = tiny.graph_and_params(make, layers=5)
    tokens, segments = tiny.tokens_and_segments()

    @jax.jit
    def loss(params):
        return jnp.square(tiny.module.merge(graph, params)(tokens, segments).logits).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert all((g == 0).all() for n, g in grads.items() if n.startswith('bert/'))
    assert all((g != 0).any() for n, g in grads.items() if not n.startswith('bert/'))

    used = set()
    for layer in range(5):  # its last bias changes the output, unless later layers are ignored
        name = f'bert/layers/blocks/{layer}/mlp_norm/bias'
        other = loss(params | {name: params[name] + 1})
        if other != loss(params):
            used.add(layer)
    last = {'embeddings': -1, 'second_to_last': 3}.get(features, 4)
    assert used == set(range(last + 1))


def test_half_precision_layer_weights_have_float32_gradients():
    def make(config, rngs):
        return tagger('sum_all')(config, rngs=rngs)

    graph, params = tiny.graph_and_params(make)
    rng = np.random.default_rng(0)
    hidden, gradient = (jnp.asarray(rng.normal(0.1, 1, (3, 64, 64, 32)), jnp.bfloat16) for _ in range(2))
    _, back = jax.vjp(lambda p: tiny.module.merge(graph, p)._select_features((*hidden,)), params)
    weights = np.exp(params['layer_weights']) / np.exp(params['layer_weights']).sum()
    products = (np.asarray(hidden, np.float64) * np.asarray(gradient[0], np.float64)).sum((1, 2, 3))
    np.testing.assert_allclose(back(gradient[0])[0]['gamma'], weights @ products[-len(weights) :], rtol=1e-4)
