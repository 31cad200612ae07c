"""The BiLSTM against its equations, and features of a frozen encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import optim
from bert_jax.modeling import heads
from bert_jax.modeling.lstm import BiLstm
from bert_jax.train.step import update
from tests.modeling import tiny

FEATURES = ('embeddings', 'second_to_last', 'last', 'sum_last_four', 'concat_last_four', 'sum_all')


def make(config, rngs):
    return BiLstm(config, 32, 5, 2, rngs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(params, name, x):
    """One direction over one sequence [T, D]."""
    h, c, out = np.zeros(5), np.zeros(5), []
    for row in x:
        gates = (
            row @ params[f'{name}/enter/kernel'] + params[f'{name}/enter/bias'] + h @ params[f'{name}/again']
        )
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def test_the_equations_in_both_directions():
    x = np.random.default_rng(0).normal(size=(1, 6, 32)).astype(np.float32)
    _, params = tiny.parts(make)
    found = tiny.model(make)(x, np.ones((1, 6), bool))[0]
    expected = x[0]
    for layer in range(2):
        forward = by_hand(params, f'forward/{layer}', expected)
        backward = by_hand(params, f'backward/{layer}', expected[::-1])[::-1]
        expected = np.concatenate([forward, backward], 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_changes_nothing():
    x = np.random.default_rng(0).normal(size=(1, 9, 32)).astype(np.float32)
    run = tiny.model(make)
    alone = run(x[:, :6], np.ones((1, 6), bool))
    padded = run(x, np.arange(9)[None] < 6)
    np.testing.assert_allclose(padded[:, :6], alone, atol=1e-6)


def tagger(features):
    return functools.partial(heads.Features, classes=3, features=features, lstm=7)


@pytest.mark.parametrize('features', FEATURES)
def test_each_kind_of_features_reads_its_layers_and_gives_the_encoder_no_gradient(features):
    def make(config, rngs):
        return tagger(features)(config, rngs=rngs)

    graph, params = tiny.parts(make, layers=5)
    tokens, segments = tiny.texts()

    def loss(params):
        return jnp.square(tiny.module.merge(graph, params)(tokens, segments).logits).sum()

    grads = jax.grad(loss)(params)
    assert all((g == 0).all() for n, g in grads.items() if n.startswith('bert/'))
    assert all((g != 0).any() for n, g in grads.items() if not n.startswith('bert/'))

    read = set()
    for layer in range(5):  # a layer matters if its last norm does, and none after it hides it
        name = f'bert/layers/blocks/{layer}/mlp_norm/bias'
        other = loss(params | {name: params[name] + 1})
        if other != loss(params):
            read.add(layer)
    last = {'embeddings': -1, 'second_to_last': 3}.get(features, 4)
    assert read == set(range(last + 1))


def test_frozen_parameters_stay_to_the_bit():
    params = {'bert/words': jnp.ones(3), 'head/kernel': jnp.ones(3)}
    tx = optim.make(optim.OptimConfig(warmup=0, frozen=('bert/',), weight_decay=0.5), 10)
    after, _ = update(tx, params, tx.init(params), params)
    np.testing.assert_array_equal(after['bert/words'], params['bert/words'])
    assert (after['head/kernel'] != 1).all()
