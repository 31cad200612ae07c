"""Relative positions: buckets of distances, and what they add to scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import module
from bert_jax.modeling.bart import Bart
from bert_jax.modeling.bert import Bert
from bert_jax.modeling.gpt import Gpt
from bert_jax.modeling.relative_bias import buckets
from tests.modeling import tiny

# Distances with their buckets of 32, up to 128, as T5 of Hugging Face transformers has them: both sides, and causal.
T5 = {
    -400: (15, 31), -128: (15, 31), -100: (15, 30), -50: (13, 24), -20: (10, 17), -16: (10, 16), -15: (9, 15),
    -8: (8, 8), -7: (7, 7), -1: (1, 1), 0: (0, 0), 1: (17, 0), 7: (23, 0), 8: (24, 0), 15: (25, 0), 20: (26, 0),
    40: (28, 0), 64: (30, 0), 100: (31, 0), 300: (31, 0),
}  # fmt: skip


def test_buckets_are_those_of_t5():
    distances = jnp.array([*T5])
    both, causal = (np.asarray(buckets(distances, 32, 128, c)) for c in (False, True))
    assert [*zip(both.tolist(), causal.tolist(), strict=True)] == [*T5.values()]


def moved(make, name, **changes):
    """Which distances of the attended token change anything if the number of a bucket changes, for one row."""
    graph, params = tiny.parts(make, layers=1, **tiny.T5, **changes)
    tokens = tiny.texts(1, 9)[0]
    args = (tokens, tokens) if make is Bart else (tokens,)
    before = tiny.runner(graph, params)(*args).hidden_states[-1]
    other = {**params, name: params[name].at[2, 1].add(1)}
    return abs(tiny.runner(graph, other)(*args).hidden_states[-1] - before).max(-1)[0]


@pytest.mark.parametrize(
    ('make', 'name'),
    [
        (Bert, 'layers/relative/table'),
        (Gpt, 'layers/relative/table'),
        (Bart, 'decoder/layers/relative/table'),
    ],
)
def test_a_bucket_matters_where_a_token_stands_so_far_behind(make, name):
    assert tiny.parts(make, **tiny.T5)[1][name].shape == (8, 4)
    first = 2  # bucket 2 is for distances of 2 and more: the first tokens see none
    change = moved(make, name)
    assert (change[:first] == 0).all()
    assert (change[first:] > 1e-4).all()


def test_only_distances_count():
    graph, params = tiny.parts(Bert, **tiny.T5)
    assert 'positions' not in params
    run = tiny.runner(graph, params)
    rng = np.random.default_rng(0)
    text = rng.integers(5, tiny.VOCAB, (1, 6), dtype=np.int32)
    padded = np.concatenate([np.zeros((1, 4), np.int32), text], 1)
    valid = np.arange(10)[None] >= 4
    here = run(text).hidden_states[-1]
    there = run(padded, None, valid).hidden_states[-1][:, 4:]
    np.testing.assert_allclose(here, there, atol=1e-5)
    assert abs(here - run(text[:, ::-1]).hidden_states[-1][:, ::-1]).max() > 1e-3


def test_rows_may_be_longer_than_the_table_of_positions_would_be():
    assert tiny.model(Bert, **tiny.T5)(*tiny.texts(1, 50)).hidden_states[-1].shape == (1, 50, tiny.WIDTH)


def test_gradients_reach_every_bucket():
    graph, params = tiny.parts(Bert, **tiny.T5)
    tokens, segments = tiny.texts(1, 30)

    @jax.jit
    @jax.grad
    def gradient(params):
        return module.merge(graph, params)(tokens, segments).hidden_states[-1][0, :, 0].sum()

    found = abs(gradient(params)['layers/relative/table'])
    assert (found[np.arange(8) != 4] > 0).all()
    assert (found[4] == 0).all(), 'nothing is at distance 0 and behind'


@pytest.mark.parametrize('choices', [{'relative': 3}, {'relative': 32, 'relative_range': 32}])
def test_too_few_buckets_or_too_short_a_range_is_said(choices):
    with pytest.raises(UserError, match=r'must be 4 or more, and model.relative_range above it'):
        tiny.config(**choices)
