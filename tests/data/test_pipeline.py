"""Batches are a pure function of the step, contain every row once per epoch and do not depend on the processes."""

import itertools
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import MAX_WINDOW_SIZE, Batches, choose_bucket_lengths, evaluation_batches, stack
from bert_jax.data.rows import HEADER

ROWS = np.arange(53 * 4).reshape(53, 4)


def make_example(row, rng):
    """Return the index of the row, its noise and its values."""
    return {'row': np.int32(row[0] // 4), 'noise': rng.random(2), 'values': row.copy()}


def make_batches(size=8, seed=0, local_rows=None):
    return Batches(ROWS, make_example, size, seed, local_rows=local_rows)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_batch_depends_only_on_the_step():
    batches = make_batches()
    in_order = [batches(s) for s in range(20)]
    fresh = make_batches()
    for step in (19, 3, 3, 0, 11):
        assert equal(fresh(step), in_order[step])
        assert equal(batches(step), in_order[step])
    assert not equal(in_order[0], in_order[1])


def test_batch_stacks_its_examples():
    batch = make_batches()(0)
    assert {k: v.shape for k, v in batch.items()} == {'row': (8,), 'noise': (8, 2), 'values': (8, 4)}
    assert batch['row'].dtype == np.int32
    assert np.array_equal(batch['values'], ROWS[batch['row']])


def epoch(number, size=8, seed=0):
    """Return the row indices of an epoch in order."""
    batches = make_batches(size, seed)
    first, end = 53 * number, 53 * (number + 1)
    stream = np.concatenate([batches(s)['row'] for s in range(first // size, -(-end // size))])
    return stream[first - first // size * size :][:53]


@pytest.mark.parametrize('number', [0, 1, 7])
def test_epoch_contains_every_row_once(number):
    assert np.array_equal(np.sort(epoch(number)), np.arange(53))


def test_every_epoch_has_a_different_order():
    orders = [epoch(n).tolist() for n in range(4)]
    assert list(range(53)) not in orders
    assert len(set(map(tuple, orders))) == 4


def test_noise_of_a_row_differs_in_every_epoch():
    batches = make_batches(1)
    noise = {}
    for step in range(3 * 53):
        batch = batches(step)
        noise.setdefault(int(batch['row'][0]), []).append(batch['noise'][0, 0])
    assert len(np.unique(np.concatenate([*noise.values()]))) == 3 * 53


def test_seed_changes_order_and_noise():
    a, b = make_batches(53)(0), make_batches(53, seed=1)(0)
    assert a['row'].tolist() != b['row'].tolist()
    assert not np.isin(a['noise'], b['noise']).any()


@pytest.mark.parametrize('size', [1, 4, 26])
def test_stream_does_not_depend_on_the_batch_size(size):
    whole = make_batches(104)(0)
    parts = [make_batches(size)(s) for s in range(104 // size)]
    for key in whole:
        assert np.array_equal(np.concatenate([p[key] for p in parts]), whole[key])


class Corpora(list):
    """Rows of two corpora, 45 and 8 rows."""

    corpus_sizes, weights = (45, 8), None


def test_corpora_are_sampled_by_their_weights_and_completely():
    rows = Corpora(ROWS)
    assert equal(Batches(rows, make_example, 8, 0)(3), make_batches()(3))
    rows.weights = [3.0, 1.0]
    batches = Batches(rows, make_example, 8, 0)
    sampled = np.concatenate([batches(step)['row'] for step in range(60)])
    small = sampled[sampled >= 45]
    assert abs(len(small) - 120) <= 1
    assert sorted(small[:8]) == [*range(45, 53)]
    assert sorted(sampled[sampled < 45][:45]) == [*range(45)]
    assert equal(Batches(rows, make_example, 8, 0)(59), batches(59))
    rows.corpus_sizes, rows.weights = (53, 0), [1.0, 0.0]
    assert equal(Batches(rows, make_example, 8, 0)(3), make_batches()(3))


@pytest.mark.parametrize('processes', [2, 4])
def test_local_batches_of_all_processes_form_the_global_batch(processes):
    whole = make_batches(8)
    parts = [make_batches(8, local_rows=local) for local in np.split(np.arange(8), processes)]
    for step in (0, 6, 100):
        found = [p(step) for p in parts]
        assert all(len(f['row']) == 8 // processes for f in found)
        assert equal({k: np.concatenate([f[k] for f in found]) for k in found[0]}, whole(step))


def test_empty_rows_are_rejected():
    with pytest.raises(UserError, match='No rows to train on. Prepare some text first'):
        Batches([], make_example, 8, 0)


@pytest.mark.parametrize(
    ('start', 'stop', 'prefetch'), [(0, 12, 4), (5, 8, 4), (5, 6, 1), (3, 9, 20), (4, 4, 4)]
)
def test_iterate_yields_the_batches_of_the_steps(start, stop, prefetch):
    batches = make_batches()
    found = list(batches.iterate(start, stop, prefetch))
    assert len(found) == stop - start
    assert all(equal(batch, batches(start + i)) for i, batch in enumerate(found))


def test_iterate_prefetches_no_more_than_allowed():
    calls = threading.Semaphore(0)
    count = 0

    def counting_make_example(row, rng):
        nonlocal count
        count += 1
        calls.release()
        return make_example(row, rng)

    iterator = Batches(ROWS, counting_make_example, 1, 0).iterate(0, 30, prefetch=4)
    next(iterator)
    for _ in range(5):
        assert calls.acquire(timeout=10)
    assert not calls.acquire(timeout=0.1)
    assert count == 5
    iterator.close()


def test_error_in_make_example_reaches_the_caller():
    def fail(row, rng):
        raise UserError('this row is bad')

    with pytest.raises(UserError, match='this row is bad'):
        next(Batches(ROWS, fail, 4, 0).iterate(0, 3))


def all_batches(*args, **options):
    return [batch for _, batch in evaluation_batches(*args, **options)]


@given(st.integers(1, 53), st.integers(1, 20), st.integers(0, 70))
def test_evaluation_counts_every_row_once(n, size, limit):
    found = all_batches(ROWS[:n], make_example, size, limit=limit)
    expected = min(n, limit or n)
    assert all(len(v) == size for b in found for v in b.values())
    weight = np.concatenate([b['row_weight'] for b in found]) if found else np.zeros(0, np.float32)
    row = np.concatenate([b['row'] for b in found]) if found else np.zeros(0)
    assert weight.dtype == np.float32
    assert row[weight == 1].tolist() == list(range(expected))
    assert set(weight.tolist()) <= {0.0, 1.0}
    assert len(found) == -(-expected // size)
    assert (weight[:expected] == 1).all()


def test_last_batch_is_filled_up_with_a_real_row():
    *_, last = all_batches(ROWS[:9], make_example, 4)
    assert last['row_weight'].tolist() == [1, 0, 0, 0]
    assert last['row'].tolist() == [8, 8, 8, 8]


def test_row_weight_of_the_example_is_replaced():
    *_, last = all_batches(ROWS[:5], lambda row, rng: {'row_weight': np.float32(1)}, 4)
    assert last['row_weight'].tolist() == [1, 0, 0, 0]


TEXTS = np.zeros((300, HEADER + 40), np.uint32)
TEXTS[:, 0] = np.random.default_rng(0).integers(1, 41, 300)
TEXTS[:, HEADER] = np.arange(300)


def make_text_example(row, rng):
    return {'number': row[HEADER], 'real': row[0], 'tokens': row[HEADER:], 'noise': rng.random()}


def make_bucketed(size=4, length_buckets=8, rows=TEXTS, local_rows=None):
    return Batches(rows, make_text_example, size, 0, length_buckets=length_buckets, local_rows=local_rows)


def test_buckets_remove_padding_and_no_token():
    found = [make_bucketed()(step) for step in range(2 * MAX_WINDOW_SIZE)]
    widths = [b['tokens'].shape[1] for b in found]
    allowed = choose_bucket_lengths(TEXTS[:, 0].astype(int), 8)
    assert {*widths} <= {*allowed}
    for batch, width in zip(found, widths, strict=True):
        assert width == min(length for length in allowed if length >= batch['real'].max())
    assert sum(int(b['real'].sum()) for b in found) > 0.8 * sum(b['tokens'].size for b in found)
    assert widths != sorted(widths), 'batches are sorted by length'


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_bucket_lengths_minimize_padding(lengths, num_buckets, multiple):
    found = choose_bucket_lengths(np.array(lengths), num_buckets, multiple)

    def num_tokens(allowed):
        return sum(min(length for length in allowed if length >= n) for n in lengths)

    values = sorted({-(-n // multiple) * multiple for n in lengths})
    possible = itertools.combinations(values[:-1], min(num_buckets, len(values)) - 1)
    assert num_tokens(found) == min(num_tokens([*p, values[-1]]) for p in possible)
    assert len(found) <= num_buckets
    assert (found % multiple == 0).all()


def test_buckets_change_only_the_grouping_of_rows():
    steps = range(MAX_WINDOW_SIZE)
    plain, short = (
        [batches(s) for s in steps] for batches in (make_bucketed(length_buckets=1), make_bucketed())
    )
    assert {b['tokens'].shape for b in plain} == {(4, 40)}
    for key in ('number', 'noise'):
        a, b = (np.sort(np.concatenate([batch[key] for batch in found])) for found in (plain, short))
        assert np.array_equal(a, b)


@pytest.mark.parametrize(('n', 'size'), [(100, 32), (100, 7), (300, 4), (20, 32)])
def test_buckets_read_an_epoch_before_the_next_one(n, size):
    batches = make_bucketed(size, rows=TEXTS[:n])
    found = [batches(step)['number'] for step in range(-(-3 * n // size))]
    for epoch in (1, 2, 3):
        seen = np.concatenate(found[: -(-epoch * n // size)])
        assert np.bincount(seen, minlength=n).min() >= epoch
    if size <= n:  # an epoch may end within a batch
        assert sum(len({*numbers}) < size for numbers in found) <= 3


@pytest.mark.parametrize(('length_buckets', 'size', 'steps'), [(1, 8, 16), (8, 4, 32)])
def test_first_position_continues_the_stream(length_buckets, size, steps):
    def rows_and_noise(size, steps, first_position=0):
        batches = Batches(
            TEXTS, make_text_example, size, 0, length_buckets=length_buckets, first_position=first_position
        )
        found = [batches(step) for step in range(steps)]
        return [np.concatenate([batch[key] for batch in found]) for key in ('number', 'noise')]

    whole = rows_and_noise(4, 64)  # two windows
    parts = zip(rows_and_noise(4, 32), rows_and_noise(size, steps, 128), strict=True)
    for expected, (first, second) in zip(whole, parts, strict=True):
        assert {*first}.isdisjoint(second)
        np.testing.assert_array_equal(np.sort([*first, *second]), np.sort(expected))


def test_bucketed_batch_depends_only_on_the_step():
    first, second = make_bucketed(), make_bucketed()
    for step in (70, 3, 70, 0):
        assert equal(first(step), second(step))
    parts = [make_bucketed(local_rows=local)(70) for local in ([0, 1], [2, 3])]
    assert equal({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, first(70))


def test_rows_on_disk_are_not_bucketed():
    assert make_bucketed(rows=list(TEXTS))(0)['tokens'].shape == (4, 40)


@given(st.integers(1, 40), st.integers(0, 300))
def test_evaluation_removes_padding_and_returns_row_indices(size, limit):
    found = list(evaluation_batches(TEXTS, make_text_example, size, limit=limit, length_buckets=8))
    for indices, batch in found:
        assert batch['number'][: len(indices)].tolist() == indices.tolist()
        assert batch['real'].max() <= batch['tokens'].shape[1] <= 40
    assert sorted(np.concatenate([indices for indices, _ in found])) == list(range(limit or 300))


def test_evaluation_noise_depends_only_on_seed_and_row():
    def noise(size, seed):
        found = all_batches(ROWS[:20], make_example, size, seed)
        return np.concatenate([b['noise'] for b in found])[:20]

    assert np.array_equal(noise(3, 0), noise(7, 0))
    assert not np.isin(noise(3, 0), noise(3, 1)).any()
    assert len(np.unique(noise(3, 0))) == 40


def test_examples_are_stacked_by_key():
    found = stack([{'a': np.arange(2), 'b': np.float32(i)} for i in range(3)])
    assert found['a'].tolist() == [[0, 1]] * 3
    assert found['b'].tolist() == [0, 1, 2]
    assert found['b'].dtype == np.float32


def test_worker_processes_make_the_same_batches():
    batches = make_batches()
    found = [*batches.iterate(3, 12, prefetch=2, workers=2)]
    assert len(found) == 9
    assert all(equal(batch, batches(step)) for step, batch in enumerate(found, 3))


def fail_on_row(row, rng):
    raise UserError('This row is damaged.')


def test_error_in_a_worker_process_reaches_the_caller():
    with pytest.raises(UserError, match='This row is damaged'):
        next(Batches(ROWS, fail_on_row, 8, 0).iterate(0, 9, workers=1))


def exit_process(row, rng):
    os._exit(1)


def test_killed_worker_process_is_reported():
    with pytest.raises(UserError, match='Lower train.workers'):
        next(Batches(ROWS, exit_process, 8, 0).iterate(0, 9, workers=1))
