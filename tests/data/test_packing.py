"""Packed batches hold every text as often as others, in few tokens, and depend on the step only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data import labeled, packing, tokenizer_training
from bert_jax.data import records as records_lib
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.pipeline import Batches, packed_evaluation_batches
from bert_jax.data.rows import HEADER
from bert_jax.data.tokenizer import TokenizerConfig

LENGTH = 64
# Lengths like those of SST-2 sentences: mean 13, 90th percentile 27.
RNG = np.random.default_rng(0)
LENGTHS = np.clip(RNG.gamma(1.8, 6, 3000).astype(int) + 3, 3, LENGTH)
ROWS = np.zeros((len(LENGTHS), HEADER + LENGTH), np.uint32)
ROWS[:, 0] = LENGTHS
ROWS[:, HEADER:] = np.arange(len(ROWS))[:, None]


def make_example(row, rng):
    valid = np.arange(LENGTH) < row[0]
    tokens = row[HEADER:].astype(np.int32)
    return {'tokens': tokens, 'valid': valid, 'noise': rng.random(), 'row_weight': np.float32(1)}


def make_batches(n=3000, size=32, multiple=1, **options):
    shape = packing.choose(LENGTHS[:n], size, LENGTH, multiple, 8)
    return Batches(ROWS[:n], make_example, size, 0, packing=shape, **options)


def numbers(batch):
    """The number of each text of a batch."""
    first = np.take_along_axis(batch['tokens'], batch['starts'], 1)
    return first[batch['row_weight'] > 0]


@pytest.mark.parametrize('multiple', [1, 4])
def test_batches_hold_few_tokens_of_padding_in_few_lengths(multiple):
    batches = make_batches(multiple=multiple)
    found = [batches(step) for step in range(150)]
    real = sum(np.count_nonzero(batch['valid']) for batch in found)
    assert real > 0.97 * sum(batch['valid'].size for batch in found)
    assert {len(numbers(batch)) for batch in found} == {32}
    assert len({batch['valid'].shape for batch in found}) <= 8
    assert len({len(batch['valid']) for batch in found}) == 1
    assert len(found[0]['valid']) % multiple == 0


@pytest.mark.slow
def test_batches_of_sst2_hold_at_most_three_percent_of_padding(sst2):
    data = LabeledConfig(sst2, text='sentence', length=LENGTH)
    records = records_lib.read(sst2, 'train', 10_000)
    vocabulary = tokenizer_training.train([r.text('sentence') for r in records], TokenizerConfig())
    rows = labeled.make_rows(records, [0] * len(records), data, vocabulary)
    shape = packing.choose(rows[:, 0].astype(int), 32, LENGTH, 1, 8)
    batches = Batches(rows, make_example, 32, 0, packing=shape)
    found = [batches(step) for step in range(64)]
    density = sum(np.count_nonzero(b['valid']) for b in found) / sum(b['valid'].size for b in found)
    assert density >= 0.97
    assert shape.density == pytest.approx(density, abs=0.01), 'as the log of a run says'


def test_batches_of_two_sides_hold_little_padding_on_each():
    sides = np.stack([LENGTHS, 2 + LENGTHS // 3], 1)
    shape = packing.choose(sides, 32, LENGTH, 1, 8)
    assert shape.density > 0.95
    rows, widths = shape.assign_rows(np.arange(32))
    totals = np.stack([sides[row].sum(0) for row in rows])
    assert (totals.max(0) <= widths).all()
    assert (totals.sum(0) > 0.9 * len(rows) * np.array(widths)).all()


@pytest.mark.parametrize(('n', 'size'), [(100, 32), (100, 7), (300, 4), (20, 32), (3000, 32)])
def test_an_epoch_is_read_before_the_next_one(n, size):
    batches = make_batches(n, size)
    found = [numbers(batches(step)) for step in range(-(-3 * n // size))]
    for epoch in (1, 2, 3):
        seen = np.concatenate(found[: -(-epoch * n // size)])
        assert np.bincount(seen, minlength=n).min() >= epoch
        assert len(seen) - epoch * n < size


def test_a_batch_depends_only_on_the_step():
    first, second = make_batches(multiple=4), make_batches(multiple=4)
    for step in (100, 3, 100):
        assert all(np.array_equal(first(step)[k], v) for k, v in second(step).items())
    num_rows = len(first(3)['tokens'])
    halves = np.split(np.arange(num_rows), 2)
    parts = [make_batches(multiple=4, local_rows=half)(3) for half in halves]
    for key, value in first(3).items():
        assert np.array_equal(np.concatenate([part[key] for part in parts]), value)


def test_the_texts_of_a_step_are_the_same_on_another_mesh():
    one, eight = make_batches(), make_batches(multiple=8)
    assert one(5)['tokens'].shape != eight(5)['tokens'].shape
    for key in ('noise', 'row_weight'):
        np.testing.assert_array_equal(*(np.sort(b(5)[key][b(5)['row_weight'] > 0]) for b in (one, eight)))
    assert sorted(numbers(one(5))) == sorted(numbers(eight(5)))


@given(st.integers(1, 40), st.integers(1, 90), st.sampled_from([1, 4]))
def test_evaluation_yields_every_text_once(size, limit, multiple):
    size *= multiple
    shape = packing.choose(LENGTHS[:90], size, LENGTH, multiple, 8)
    seen = []
    for texts, batch in packed_evaluation_batches(ROWS[:90], make_example, 0, shape, limit=limit):
        weights = batch['row_weight'].ravel()
        np.testing.assert_array_equal(weights, texts >= 0)
        first = np.take_along_axis(batch['tokens'], batch['starts'], 1).ravel()
        np.testing.assert_array_equal(first[texts >= 0], texts[texts >= 0])
        seen.extend(texts[texts >= 0])
    assert sorted(seen) == list(range(limit))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 6))
def test_bins_hold_no_more_texts_than_their_size(lengths, num_bins):
    sizes = [-(-len(lengths) // num_bins)] * num_bins
    bins = packing.balance(np.array(lengths)[:, None], sizes)
    assert np.bincount(bins, minlength=num_bins).max() <= sizes[0]


def test_packed_row_joins_tokens_and_numbers_texts():
    examples = [make_example(ROWS[i], np.random.default_rng(i)) for i in (4, 9)]
    a, b = LENGTHS[[4, 9]]
    row = packing.pack_row(examples, [a + b + 5], 3)
    np.testing.assert_array_equal(row['valid'], [1] * a + [2] * b + [0] * 5)
    np.testing.assert_array_equal(row['tokens'], [4] * a + [9] * b + [0] * 5)
    assert row['starts'].tolist() == [0, a, 0]
    assert row['row_weight'].tolist() == [1, 1, 0]
    assert row['noise'].tolist() == [*(e['noise'] for e in examples), 0]
