"""Masking: what may be chosen, how much, and what it becomes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data.masking import MaskRates, mask_tokens

FIRST, PIECE, WORD = 5, 3007, 3005  # 'w0', '##z', 'x'; see the fixture `words`


def row_of(a, b, length, tokenizer, label=0):
    return rows_lib.unpack(
        rows_lib.pack(np.array(a, int), b if b is None else np.array(b, int), label, length, tokenizer)
    )


def random_row(rng, tokenizer, length=64, pieces=False):
    """A row of two segments, with padding behind; a third of its tokens go on with a word if `pieces`."""

    def segment():
        ids = rng.integers(FIRST, 3000, rng.integers(1, 30))
        return np.where(rng.random(len(ids)) < 0.4, PIECE, ids) if pieces else ids

    return row_of(segment(), segment(), length, tokenizer)


def ordinary(row, tokenizer):
    real = np.arange(len(row.tokens)) < row.length
    return np.flatnonzero(real & ~np.isin(row.tokens, [tokenizer.cls, tokenizer.sep]))


SHARES = st.sampled_from([(0.8, 0.1), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.3, 0.2)])
RATES = st.builds(lambda rate, shares: MaskRates(rate, *shares), st.floats(0.01, 1), SHARES)


@given(st.integers(0, 10_000), RATES, st.integers(1, 40), st.booleans())
def test_what_masking_may_touch(words, seed, rates, most, whole):
    rng = np.random.default_rng(seed)
    row = random_row(rng, words, pieces=whole)
    before = row.tokens.copy()
    tokens, positions = mask_tokens(row, rates, most, words, rng, whole)
    may = ordinary(row, words)
    assert np.array_equal(row.tokens, before), 'the row itself was changed'
    assert np.isin(positions, may).all(), 'special tokens and padding are never chosen'
    assert (np.diff(positions) > 0).all(), 'ascending, none twice'
    kept = np.delete(np.arange(64), positions)
    assert np.array_equal(tokens[kept], before[kept]), 'what was not chosen stays'
    assert not np.isin(tokens[positions], [words.pad, words.unk, words.cls, words.sep]).any()
    assert tokens.dtype == before.dtype
    assert tokens.shape == (64,)
    want = min(most, max(1, round(rates.rate * len(may))))
    if whole:
        assert len(positions) <= want
    else:
        assert len(positions) == want


@given(st.integers(0, 10_000), st.booleans())
def test_the_same_generator_gives_the_same_noise(words, seed, whole):
    row = random_row(np.random.default_rng(seed), words, pieces=whole)
    once, again = (
        mask_tokens(row, MaskRates(), 20, words, np.random.default_rng(seed), whole) for _ in range(2)
    )
    assert np.array_equal(once[0], again[0])
    assert np.array_equal(once[1], again[1])


def test_another_generator_gives_other_noise(words):
    row = random_row(np.random.default_rng(0), words)
    found = {tuple(mask_tokens(row, MaskRates(), 20, words, np.random.default_rng(s))[1]) for s in range(20)}
    assert len(found) > 15


@pytest.mark.parametrize('whole', [False, True])
@pytest.mark.parametrize('shares', [(0.8, 0.1), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_shares_of_mask_random_and_kept(words, shares, whole):
    mask, random = shares
    rng = np.random.default_rng(0)
    counts, total = np.zeros(3), 0
    for _ in range(400):
        row = random_row(rng, words)
        tokens, chosen = mask_tokens(row, MaskRates(0.3, mask, random), 64, words, rng, whole)
        new, old = tokens[chosen], row.tokens[chosen]
        counts += [(new == words.mask).sum(), ((new != words.mask) & (new != old)).sum(), (new == old).sum()]
        total += len(chosen)
    expected = np.array([mask, random, 1 - mask - random])
    assert total > 3000
    np.testing.assert_allclose(counts / total, expected, atol=0.025)
    assert (counts[expected == 0] <= 0.001 * total).all()  # a random token may be the old one


def test_every_position_is_as_likely(words):
    rng = np.random.default_rng(0)
    row = row_of(range(100, 120), range(200, 220), 50, words)
    counts = np.zeros(50)
    for _ in range(3000):
        counts[mask_tokens(row, MaskRates(0.25), 50, words, rng)[1]] += 1
    share = counts[ordinary(row, words)] / 3000
    np.testing.assert_allclose(share, 0.25, atol=0.04)


def test_random_tokens_are_drawn_from_all_ordinary_ones(words):
    rng = np.random.default_rng(0)
    row = row_of([7] * 60, None, 64, words)
    found = np.concatenate(
        [mask_tokens(row, MaskRates(1, 0, 1), 64, words, rng)[0][1:61] for _ in range(200)]
    )
    assert np.isin(found, words.ordinary).all()
    assert len(np.unique(found)) > 0.95 * len(words.ordinary)
    assert np.abs(np.bincount(found).max() - 4) < 15


@pytest.mark.parametrize(
    ('n', 'rate', 'most', 'expected'),
    [(40, 0.15, 20, 6), (40, 0.15, 4, 4), (2, 0.15, 20, 1), (10, 1.0, 20, 10)],
)
@pytest.mark.parametrize('whole', [False, True])
def test_how_many_are_chosen(words, n, rate, most, expected, whole):
    row = row_of(range(100, 100 + n), None, 64, words)
    _, chosen = mask_tokens(row, MaskRates(rate), most, words, np.random.default_rng(0), whole)
    assert len(chosen) == expected


@pytest.mark.parametrize('whole', [False, True])
def test_a_row_without_ordinary_tokens(words, whole):
    row = row_of([], [], 8, words)
    tokens, chosen = mask_tokens(row, MaskRates(), 4, words, np.random.default_rng(0), whole)
    assert len(chosen) == 0
    assert np.array_equal(tokens, row.tokens)


def word_of(row, tokenizer):
    """The number of the word of each ordinary position, counted by hand; -1 elsewhere."""
    found, number, may = [], -1, set(ordinary(row, tokenizer).tolist())
    for i, token in enumerate(row.tokens.tolist()):
        if i not in may:
            found.append(-1)
            continue
        if not tokenizer.token(token).startswith('##') or found[i - 1] == -1:
            number += 1
        found.append(number)
    return np.array(found)


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.integers(1, 40))
def test_whole_words_are_chosen_or_not(words, seed, rate, most):
    rng = np.random.default_rng(seed)
    row = random_row(rng, words, pieces=True)
    _, chosen = mask_tokens(row, MaskRates(rate), most, words, rng, whole_words=True)
    word = word_of(row, words)
    is_chosen = np.isin(np.arange(64), chosen)
    for number in range(word.max() + 1):
        assert len(set(is_chosen[word == number].tolist())) == 1
    want = min(most, max(1, round(rate * len(ordinary(row, words)))))
    assert len(chosen) <= want
    left = [
        size for n in range(word.max() + 1) if not is_chosen[word == n].any() and (size := (word == n).sum())
    ]
    assert all(size > want - len(chosen) for size in left), 'another word would have fitted'


def test_a_piece_that_opens_a_segment_is_a_word_of_its_own(words):
    row = row_of([WORD, PIECE], [PIECE, PIECE], 16, words)
    _, chosen = mask_tokens(row, MaskRates(0.5), 16, words, np.random.default_rng(0), whole_words=True)
    assert chosen.tolist() in ([1, 2], [4, 5])


def test_a_word_that_is_too_long_is_not_chosen(words):
    row = row_of([WORD, *[PIECE] * 9, 100], None, 16, words)
    for seed in range(10):
        _, chosen = mask_tokens(
            row, MaskRates(0.15), 16, words, np.random.default_rng(seed), whole_words=True
        )
        assert chosen.tolist() == [11]


@given(st.integers(0, 10_000))
def test_words_of_one_piece_are_chosen_as_tokens_are(words, seed):
    row = random_row(np.random.default_rng(seed), words)
    _, chosen = mask_tokens(row, MaskRates(0.2), 40, words, np.random.default_rng(seed), whole_words=True)
    assert len(chosen) == max(1, round(0.2 * len(ordinary(row, words))))


@pytest.mark.parametrize(
    'rates',
    [
        dict(rate=0),
        dict(rate=-0.1),
        dict(rate=1.1),
        dict(mask=-0.1),
        dict(random=-0.1),
        dict(mask=0.8, random=0.3),
        dict(rate=float('nan')),
    ],
)
def test_rates_that_are_no_shares_are_refused(rates):
    with pytest.raises(
        UserError, match=r'Masking rates are shares of 1, and mask \+ random is at most 1; got'
    ):
        MaskRates(**rates)


def test_rates_at_the_limits_are_accepted():
    for rates in (dict(rate=1), dict(mask=0, random=0), dict(mask=1, random=0), dict(mask=0.9, random=0.1)):
        assert dataclasses.asdict(MaskRates(**rates)).items() >= rates.items()
