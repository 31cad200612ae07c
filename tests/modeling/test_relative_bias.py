"""Relative position bias: buckets of distances, and their effect on hidden states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import module
from bert_jax.modeling.bart import Bart
from bert_jax.modeling.bert import Bert
from bert_jax.modeling.gpt import Gpt
from bert_jax.modeling.relative_bias import relative_position_bucket
from tests.modeling import tiny

# Bidirectional and causal bucket of each distance, with 32 buckets up to 128, from T5 in Hugging Face transformers.
T5 = {
    -400: (15, 31), -128: (15, 31), -100: (15, 30), -50: (13, 24), -20: (10, 17), -16: (10, 16), -15: (9, 15),
    -8: (8, 8), -7: (7, 7), -1: (1, 1), 0: (0, 0), 1: (17, 0), 7: (23, 0), 8: (24, 0), 15: (25, 0), 20: (26, 0),
    40: (28, 0), 64: (30, 0), 100: (31, 0), 300: (31, 0),
}  # fmt: skip


def test_buckets_equal_those_of_t5():
    distances = jnp.array([*T5])
    both, causal = (np.asarray(relative_position_bucket(distances, 32, 128, c)) for c in (False, True))
    assert [*zip(both.tolist(), causal.tolist(), strict=True)] == [*T5.values()]


def effect_of_bucket_2(make, name, **changes):
    """[T] change of the last hidden states of one row when the bias of bucket 2 changes."""
    graph, params = tiny.graph_and_params(make, layers=1, **tiny.T5, **changes)
    tokens = tiny.tokens_and_segments(1, 9)[0]
    args = (tokens, tokens) if make is Bart else (tokens,)
    before = tiny.runner(graph, params)(*args).hidden_states[-1]
    other = {**params, name: params[name].at[2, 1].add(1)}
    return abs(tiny.runner(graph, other)(*args).hidden_states[-1] - before).max(-1)[0]


@pytest.mark.parametrize(
    ('make', 'name'),
    [
        (Bert, 'layers/relative_bias/table'),
        (Gpt, 'layers/relative_bias/table'),
        (Bart, 'decoder/layers/relative_bias/table'),
    ],
)
def test_a_bucket_affects_tokens_that_have_an_earlier_token_at_its_distance(make, name):
    assert tiny.graph_and_params(make, **tiny.T5)[1][name].shape == (8, 4)
    first = 2  # bucket 2 begins at distance 2, which the first two tokens do not have
    change = effect_of_bucket_2(make, name)
    assert (change[:first] == 0).all()
    assert (change[first:] > 1e-4).all()


def test_hidden_states_depend_only_on_relative_positions():
    graph, params = tiny.graph_and_params(Bert, **tiny.T5)
    assert 'position_embedding' not in params
    run = tiny.runner(graph, params)
    rng = np.random.default_rng(0)
    text = rng.integers(5, tiny.VOCAB, (1, 6), dtype=np.int32)
    padded = np.concatenate([np.zeros((1, 4), np.int32), text], 1)
    valid = np.arange(10)[None] >= 4
    unpadded = run(text).hidden_states[-1]
    left_padded = run(padded, None, valid).hidden_states[-1][:, 4:]
    np.testing.assert_allclose(unpadded, left_padded, atol=1e-5)
    assert abs(unpadded - run(text[:, ::-1]).hidden_states[-1][:, ::-1]).max() > 1e-3


def test_relative_positions_have_no_length_limit():
    assert tiny.model(Bert, **tiny.T5)(*tiny.tokens_and_segments(1, 50)).hidden_states[-1].shape == (
        1,
        50,
        tiny.WIDTH,
    )


def test_gradients_reach_every_bucket():
    graph, params = tiny.graph_and_params(Bert, **tiny.T5)
    tokens, segments = tiny.tokens_and_segments(1, 30)

    @jax.jit
    @jax.grad
    def gradient(params):
        return module.merge(graph, params)(tokens, segments).hidden_states[-1][0, :, 0].sum()

    gradients = abs(gradient(params)['layers/relative_bias/table'])
    assert (gradients[np.arange(8) != 4] > 0).all()
    assert (gradients[4] == 0).all(), 'bucket 4, distance 0 to the right, is impossible'


@pytest.mark.parametrize(
    'settings', [{'relative_buckets': 3}, {'relative_buckets': 32, 'relative_max_distance': 32}]
)
def test_too_few_buckets_or_too_short_a_distance_is_rejected(settings):
    with pytest.raises(UserError, match=r'at least 4 and less than model\.relative_max_distance'):
        tiny.config(**settings)
