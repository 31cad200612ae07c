"""Batches: a pure function of the step, every row once an epoch, the same for many processes."""

import itertools
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import Batches, cuts, once, stack
from bert_jax.data.rows import HEADER

ROWS = np.arange(53 * 4).reshape(53, 4)


def make(row, rng):
    """Which row it is, and the noise that it got."""
    return {'row': np.int32(row[0] // 4), 'noise': rng.random(2), 'all': row.copy()}


def batches(size=8, seed=0, local=None):
    return Batches(ROWS, make, size, seed, local=local)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_a_batch_depends_on_the_step_alone():
    asked = batches()
    in_turn = [asked(s) for s in range(20)]
    fresh = batches()
    for step in (19, 3, 3, 0, 11):
        assert equal(fresh(step), in_turn[step])
        assert equal(asked(step), in_turn[step])
    assert not equal(in_turn[0], in_turn[1])


def test_a_batch_has_the_shapes_of_its_examples():
    batch = batches()(0)
    assert {k: v.shape for k, v in batch.items()} == {'row': (8,), 'noise': (8, 2), 'all': (8, 4)}
    assert batch['row'].dtype == np.int32
    assert np.array_equal(batch['all'], ROWS[batch['row']])


def epoch(number, size=8, seed=0):
    """The rows of one epoch in their order."""
    made = batches(size, seed)
    first, end = 53 * number, 53 * (number + 1)
    stream = np.concatenate([made(s)['row'] for s in range(first // size, -(-end // size))])
    return stream[first - first // size * size :][:53]


@pytest.mark.parametrize('number', [0, 1, 7])
def test_an_epoch_has_every_row_once(number):
    assert np.array_equal(np.sort(epoch(number)), np.arange(53))


def test_every_epoch_has_an_order_of_its_own():
    orders = [epoch(n).tolist() for n in range(4)]
    assert list(range(53)) not in orders
    assert len(set(map(tuple, orders))) == 4


def test_a_row_has_other_noise_in_every_epoch():
    made = batches(1)
    noise = {}
    for step in range(3 * 53):
        batch = made(step)
        noise.setdefault(int(batch['row'][0]), []).append(batch['noise'][0, 0])
    assert len(np.unique(np.concatenate([*noise.values()]))) == 3 * 53


def test_the_seed_changes_order_and_noise():
    a, b = batches(53)(0), batches(53, seed=1)(0)
    assert a['row'].tolist() != b['row'].tolist()
    assert not np.isin(a['noise'], b['noise']).any()


@pytest.mark.parametrize('size', [1, 4, 26])
def test_the_stream_is_the_same_for_every_batch_size(size):
    whole = batches(104)(0)
    parts = [batches(size)(s) for s in range(104 // size)]
    for key in whole:
        assert np.array_equal(np.concatenate([p[key] for p in parts]), whole[key])


class Corpora(list):
    """Rows of two corpora, 45 and 8."""

    parts, weights = (45, 8), None


def test_corpora_are_drawn_from_by_their_weights_and_each_in_full():
    rows = Corpora(ROWS)
    assert equal(Batches(rows, make, 8, 0)(3), batches()(3))
    rows.weights = [3.0, 1.0]
    made = Batches(rows, make, 8, 0)
    drawn = np.concatenate([made(step)['row'] for step in range(60)])
    small = drawn[drawn >= 45]
    assert abs(len(small) - 120) <= 1
    assert sorted(small[:8]) == [*range(45, 53)]
    assert sorted(drawn[drawn < 45][:45]) == [*range(45)]
    assert equal(Batches(rows, make, 8, 0)(59), made(59))
    rows.parts, rows.weights = (53, 0), [1.0, 0.0]
    assert equal(Batches(rows, make, 8, 0)(3), batches()(3))


@pytest.mark.parametrize('processes', [2, 4])
def test_parts_of_processes_are_the_batch_of_one(processes):
    whole = batches(8)
    parts = [batches(8, local=local) for local in np.split(np.arange(8), processes)]
    for step in (0, 6, 100):
        found = [p(step) for p in parts]
        assert all(len(f['row']) == 8 // processes for f in found)
        assert equal({k: np.concatenate([f[k] for f in found]) for k in found[0]}, whole(step))


def test_no_rows_are_refused():
    with pytest.raises(UserError, match='no rows to train on: prepare some text first'):
        Batches([], make, 8, 0)


@pytest.mark.parametrize(
    ('start', 'stop', 'ahead'), [(0, 12, 4), (5, 8, 4), (5, 6, 1), (3, 9, 20), (4, 4, 4)]
)
def test_iterating_gives_the_batches_of_the_steps(start, stop, ahead):
    made = batches()
    found = list(made.iterate(start, stop, ahead))
    assert len(found) == stop - start
    assert all(equal(batch, made(start + i)) for i, batch in enumerate(found))


def test_iterating_works_ahead_but_not_further():
    done = threading.Semaphore(0)
    count = 0

    def counted(row, rng):
        nonlocal count
        count += 1
        done.release()
        return make(row, rng)

    iterator = Batches(ROWS, counted, 1, 0).iterate(0, 30, ahead=4)
    next(iterator)
    for _ in range(5):
        assert done.acquire(timeout=10)
    assert not done.acquire(timeout=0.1)
    assert count == 5
    iterator.close()


def test_an_error_in_an_example_reaches_the_one_who_iterates():
    def fail(row, rng):
        raise UserError('this row is bad')

    with pytest.raises(UserError, match='this row is bad'):
        next(Batches(ROWS, fail, 4, 0).iterate(0, 3))


def batches_once(*args, **options):
    return [batch for _, batch in once(*args, **options)]


@given(st.integers(1, 53), st.integers(1, 20), st.integers(0, 70))
def test_every_row_counts_once(n, size, limit):
    found = batches_once(ROWS[:n], make, size, limit=limit)
    wanted = min(n, limit or n)
    assert all(len(v) == size for b in found for v in b.values())
    weight = np.concatenate([b['row_weight'] for b in found]) if found else np.zeros(0, np.float32)
    row = np.concatenate([b['row'] for b in found]) if found else np.zeros(0)
    assert weight.dtype == np.float32
    assert row[weight == 1].tolist() == list(range(wanted))
    assert set(weight.tolist()) <= {0.0, 1.0}
    assert len(found) == -(-wanted // size)
    assert (weight[:wanted] == 1).all()


def test_filling_up_repeats_a_row_of_the_data():
    *_, last = batches_once(ROWS[:9], make, 4)
    assert last['row_weight'].tolist() == [1, 0, 0, 0]
    assert last['row'].tolist() == [8, 8, 8, 8]


def test_weights_of_the_example_are_replaced():
    *_, last = batches_once(ROWS[:5], lambda row, rng: {'row_weight': np.float32(1)}, 4)
    assert last['row_weight'].tolist() == [1, 0, 0, 0]


TEXTS = np.zeros((300, HEADER + 40), np.uint32)
TEXTS[:, 0] = np.random.default_rng(0).integers(1, 41, 300)
TEXTS[:, HEADER] = np.arange(300)


def text(row, rng):
    return {'number': row[HEADER], 'real': row[0], 'tokens': row[HEADER:], 'noise': rng.random()}


def binned(size=4, bins=8, rows=TEXTS, local=None):
    return Batches(rows, text, size, 0, bins=bins, local=local)


def test_bins_cut_padding_and_no_token():
    found = [binned()(step) for step in range(2 * Batches.WINDOW)]
    widths = [b['tokens'].shape[1] for b in found]
    allowed = cuts(TEXTS[:, 0].astype(int), 8)
    assert {*widths} <= {*allowed}
    for batch, width in zip(found, widths, strict=True):
        assert width == min(cut for cut in allowed if cut >= batch['real'].max())
    assert sum(int(b['real'].sum()) for b in found) > 0.8 * sum(b['tokens'].size for b in found)
    assert widths != sorted(widths), 'short batches do not come first'


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_cuts_leave_the_least_padding(lengths, bins, unit):
    found = cuts(np.array(lengths), bins, unit)

    def tokens(allowed):
        return sum(min(c for c in allowed if c >= n) for n in lengths)

    values = sorted({-(-n // unit) * unit for n in lengths})
    possible = itertools.combinations(values[:-1], min(bins, len(values)) - 1)
    assert tokens(found) == min(tokens([*p, values[-1]]) for p in possible)
    assert len(found) <= bins
    assert (found % unit == 0).all()


def test_bins_change_the_company_of_a_row_and_nothing_else():
    steps = range(Batches.WINDOW)
    plain, short = ([made(s) for s in steps] for made in (binned(bins=1), binned()))
    assert {b['tokens'].shape for b in plain} == {(4, 40)}
    for key in ('number', 'noise'):
        a, b = (np.sort(np.concatenate([batch[key] for batch in found])) for found in (plain, short))
        assert np.array_equal(a, b)


def test_a_binned_batch_depends_on_the_step_alone():
    one, other = binned(), binned()
    for step in (70, 3, 70, 0):
        assert equal(one(step), other(step))
    parts = [binned(local=local)(70) for local in ([0, 1], [2, 3])]
    assert equal({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, one(70))


def test_rows_on_disk_are_not_binned():
    assert binned(rows=list(TEXTS))(0)['tokens'].shape == (4, 40)


@given(st.integers(1, 40), st.integers(0, 300))
def test_an_evaluation_cuts_padding_and_says_which_rows_are_where(size, limit):
    found = list(once(TEXTS, text, size, limit=limit, bins=8))
    for indices, batch in found:
        assert batch['number'][: len(indices)].tolist() == indices.tolist()
        assert batch['real'].max() <= batch['tokens'].shape[1] <= 40
    assert sorted(np.concatenate([indices for indices, _ in found])) == list(range(limit or 300))


def test_noise_of_an_evaluation_depends_on_seed_and_row_alone():
    def noise(size, seed):
        found = batches_once(ROWS[:20], make, size, seed)
        return np.concatenate([b['noise'] for b in found])[:20]

    assert np.array_equal(noise(3, 0), noise(7, 0))
    assert not np.isin(noise(3, 0), noise(3, 1)).any()
    assert len(np.unique(noise(3, 0))) == 40


def test_examples_are_stacked_by_key():
    found = stack([{'a': np.arange(2), 'b': np.float32(i)} for i in range(3)])
    assert found['a'].tolist() == [[0, 1]] * 3
    assert found['b'].tolist() == [0, 1, 2]
    assert found['b'].dtype == np.float32


def test_processes_make_the_same_batches():
    asked = batches()
    made = [*asked.iterate(3, 12, ahead=2, workers=2)]
    assert len(made) == 9
    assert all(equal(batch, asked(step)) for step, batch in enumerate(made, 3))


def refuse(row, rng):
    raise UserError('This row is damaged: mend it.')


def test_an_error_in_a_process_is_the_same_error():
    with pytest.raises(UserError, match='mend it'):
        next(Batches(ROWS, refuse, 8, 0).iterate(0, 9, workers=1))


def end(row, rng):
    os._exit(1)


def test_a_killed_process_is_said():
    with pytest.raises(UserError, match='fewer train.workers'):
        next(Batches(ROWS, end, 8, 0).iterate(0, 9, workers=1))
