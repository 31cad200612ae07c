"""Masked LM examples: what is to be predicted, and what the batch says of each token."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.tasks import mlm

LENGTH = 32


@pytest.fixture(scope='module')
def vocabulary():
    return tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(200)), '##s'])


def task(vocabulary, **settings):
    return mlm.Task(mlm.Config(**settings), TextConfig(), vocabulary)


def packed(vocabulary, n=12, m=9, label=1, length=LENGTH):
    second = np.arange(100, 100 + m) if m else None
    return rows_lib.pack(np.arange(10, 10 + n), second, label, length, vocabulary)


def example(vocabulary, row, seed=0, **settings):
    return task(vocabulary, **settings).example(row, np.random.default_rng(seed))


@given(st.integers(1, 15), st.integers(0, 14), st.integers(0, 1000), st.booleans(), st.floats(0.05, 1))
def test_labels_are_the_original_tokens_at_the_positions(vocabulary, n, m, seed, whole, rate):
    row = packed(vocabulary, n, m)
    batch = example(vocabulary, row, seed, whole_words=whole, mask_rate=rate)
    original = row[rows_lib.HEADER :]
    real = batch['weights'] == 1
    positions = batch['positions'][real]
    assert real.any()
    assert set(batch['weights'].tolist()) <= {0.0, 1.0}
    assert (np.diff(real.astype(int)) <= 0).all(), 'real predictions come first'
    assert np.array_equal(batch['labels'][real], original[positions])
    assert (batch['labels'][real] > vocabulary.mask).all()
    assert len(set(positions.tolist())) == len(positions)
    kept = np.setdiff1d(np.arange(LENGTH), positions)
    assert np.array_equal(batch['tokens'][kept], original[kept])


def test_segments_and_valid_follow_the_row(vocabulary):
    batch = example(vocabulary, packed(vocabulary, 4, 3))
    #                                   [CLS] a a a a [SEP] b b b [SEP]
    assert batch['segments'].tolist() == [0] * 6 + [1] * 4 + [0] * (LENGTH - 10)
    assert batch['valid'].tolist() == [True] * 10 + [False] * (LENGTH - 10)


def test_one_segment_has_no_second(vocabulary):
    batch = example(vocabulary, packed(vocabulary, 4, 0, 0))
    assert not batch['segments'].any()
    assert batch['valid'].sum() == 6


@pytest.mark.parametrize('label', [0, 1])
def test_the_label_of_the_row_is_the_second_objective(vocabulary, label):
    assert example(vocabulary, packed(vocabulary, label=label))['next'] == label


def test_shuffling_moves_ordinary_tokens_and_no_other(vocabulary):
    row = packed(vocabulary)
    shuffled = task(vocabulary, shuffle=True, mask=0.0, random=0.0).example(row, np.random.default_rng(0))
    tokens, before = shuffled['tokens'], row[rows_lib.HEADER :]
    assert sorted(tokens) == sorted(before)
    assert tokens.tolist() != before.tolist()
    special = np.isin(before, [vocabulary.cls, vocabulary.sep, vocabulary.pad])
    np.testing.assert_array_equal(tokens[special], before[special])
    np.testing.assert_array_equal(shuffled['labels'], tokens[shuffled['positions']])


def test_every_example_has_the_same_shapes_and_types(vocabulary):
    make = task(vocabulary).example
    found = [make(packed(vocabulary, n), np.random.default_rng(0)) for n in (1, 5, 15)]
    batch = stack(found)
    assert {k: (v.shape[1:], v.dtype.name) for k, v in batch.items()} == {
        'tokens': ((32,), 'int32'),
        'segments': ((32,), 'int32'),
        'valid': ((32,), 'bool'),
        'positions': ((5,), 'int32'),
        'labels': ((5,), 'int32'),
        'weights': ((5,), 'float32'),
        'source': ((), 'int32'),
        'next': ((), 'int32'),
        'row_weight': ((), 'float32'),
    }
    assert batch['weights'].sum(1).tolist() == [2, 2, 4]
    assert batch['row_weight'].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ('length', 'rate', 'n'), [(128, 0.15, 20), (512, 0.15, 77), (128, 0.4, 52), (20, 0.15, 3), (8, 1.0, 8)]
)
def test_room_for_predictions(vocabulary, length, rate, n):
    made = task(vocabulary, mask_rate=rate)
    assert made.predictions(length) == n
    full = rows_lib.pack(np.full(length - 2, 10), None, 0, length, vocabulary)
    batch = made.example(full, np.random.default_rng(0))
    assert batch['positions'].shape == (n,)
    assert batch['weights'].sum() == min(n, round(rate * (length - 2)))


@pytest.mark.parametrize(
    ('settings', 'share'), [(dict(mask=1.0, random=0.0), 1), (dict(mask=0.0, random=0.0), 0), (dict(), 0.8)]
)
def test_the_settings_reach_the_noise(vocabulary, settings, share):
    masked = total = 0
    for seed in range(100):
        batch = example(vocabulary, packed(vocabulary), seed, **settings)
        chosen = batch['positions'][batch['weights'] == 1]
        masked += (batch['tokens'][chosen] == vocabulary.mask).sum()
        total += len(chosen)
    assert masked / total == pytest.approx(share, abs=0.07)


def test_whole_words_reach_the_noise(vocabulary):
    piece = vocabulary.backend.token_to_id('##s')
    row = rows_lib.pack(np.array([10, piece] * 8), None, 0, LENGTH, vocabulary)
    for seed in range(20):
        batch = example(vocabulary, row, seed, whole_words=True)
        chosen = batch['positions'][batch['weights'] == 1]
        assert chosen.tolist() == [chosen[0], chosen[0] + 1]
        assert chosen[0] % 2 == 1


def test_the_generator_is_all_randomness(vocabulary):
    first, again, other = (example(vocabulary, packed(vocabulary), seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


def test_bad_rates_are_refused_at_once(vocabulary):
    with pytest.raises(UserError, match='Masking rates'):
        task(vocabulary, mask=0.9, random=0.2)


def test_the_rows_are_those_of_the_settings(vocabulary):
    maker = task(vocabulary, next='swap', next_rate=0.3, short_rate=0.2).row_maker(64)
    assert maker == rows_lib.SegmentRows(64, 'swap', 0.3, 0.2)


class Model:
    """Stands in for a model: losses 1, 2, 3 ... at the positions, and scores that say 'next'."""

    def bert(self, tokens, segments, valid, key, at):
        return types.SimpleNamespace(hidden_states=(tokens, jnp.pad(at, ((0, 0), (1, 0)))), pooled='pooled')

    def masked_loss(self, hidden, labels):
        np.testing.assert_array_equal(hidden, 5)  # the positions to predict, without the first
        losses = jnp.arange(1.0, labels.size + 1).reshape(labels.shape)
        return losses, jnp.ones(labels.shape, bool).at[0, 0].set(False)

    def next_scores(self, pooled):
        assert pooled == 'pooled'
        return jnp.log(jnp.array([[0.75, 0.25]] * 3))


def fake_batch():
    return {
        'tokens': jnp.zeros((3, 8), jnp.int32),
        'segments': jnp.zeros((3, 8), jnp.int32),
        'valid': jnp.ones((3, 8), bool),
        'positions': jnp.full((3, 2), 5, jnp.int32),
        'labels': jnp.zeros((3, 2), jnp.int32),
        'weights': jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        'next': jnp.array([0, 1, 0]),
        'row_weight': jnp.array([1.0, 1.0, 0.0]),
    }


def test_the_loss_counts_real_predictions_of_real_rows(vocabulary):
    result = task(vocabulary).loss(Model(), fake_batch(), None)
    loss, accuracy = result.terms['mlm_loss'], result.metrics['mlm_accuracy']
    assert (float(loss.total), float(loss.weight)) == (1 + 2 + 3, 3)
    assert (float(accuracy.total), float(accuracy.weight)) == (2, 3)


def test_corpora_with_names_have_losses_of_their_own(vocabulary):
    data = TextConfig(('en=a.txt', 'de=b.txt', 'fr=c.txt'))
    batch = {**fake_batch(), 'source': jnp.array([1, 0, 0])}
    metrics = mlm.Task(mlm.Config(), data, vocabulary).loss(Model(), batch, None).metrics
    found = {k: (float(m.total), float(m.weight)) for k, m in metrics.items() if '/' in k}
    assert found == {'mlm_loss/en': (3, 1), 'mlm_loss/de': (1 + 2, 2), 'mlm_loss/fr': (0, 0)}


def test_the_loss_of_the_second_objective(vocabulary):
    result = task(vocabulary).loss(Model(), fake_batch(), None)
    loss, accuracy = result.terms['next_loss'], result.metrics['next_accuracy']
    assert float(loss.total) == pytest.approx(-np.log(0.75) - np.log(0.25), rel=1e-6)
    assert float(loss.weight) == 2
    assert (float(accuracy.total), float(accuracy.weight)) == (1, 2)


def test_without_a_second_objective_there_is_no_second_loss(vocabulary):
    result = task(vocabulary, next='none').loss(Model(), fake_batch(), None)
    assert set(result.terms) == {'mlm_loss'}
    assert set(result.metrics) == {'mlm_accuracy'}
