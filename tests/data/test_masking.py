"""Masking: which tokens are chosen, how many, and what replaces them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data.masking import MaskRates, mask_tokens

FIRST, PIECE, WORD = 5, 3007, 3005  # ids of 'w0', '##z' and 'x' in the fixture `words`


def make_row(a, b, length, tokenizer, label=0):
    return rows_lib.unpack(
        rows_lib.pack(np.array(a, int), b if b is None else np.array(b, int), label, length, tokenizer)
    )


def random_row(rng, tokenizer, length=64, pieces=False):
    """Make a row of two segments and padding; with `pieces`, 40 % of its tokens continue a word."""

    def segment():
        ids = rng.integers(FIRST, 3000, rng.integers(1, 30))
        return np.where(rng.random(len(ids)) < 0.4, PIECE, ids) if pieces else ids

    return make_row(segment(), segment(), length, tokenizer)


def continuations(row, tokenizer, whole_words=True):
    return tokenizer.continues_word[row.tokens] if whole_words else None


def ordinary_positions(row, tokenizer):
    real = np.arange(len(row.tokens)) < row.length
    return np.flatnonzero(real & ~np.isin(row.tokens, [tokenizer.cls, tokenizer.sep]))


FRACTIONS = st.sampled_from([(0.8, 0.1), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.3, 0.2)])
RATES = st.builds(lambda rate, fractions: MaskRates(rate, *fractions), st.floats(0.01, 1), FRACTIONS)


@given(st.integers(0, 10_000), RATES, st.integers(1, 40), st.booleans())
def test_masking_changes_only_chosen_ordinary_tokens(
    word_tokenizer, seed, rates, max_predictions, whole_words
):
    rng = np.random.default_rng(seed)
    row = random_row(rng, word_tokenizer, pieces=whole_words)
    before = row.tokens.copy()
    tokens, positions = mask_tokens(
        row, rates, max_predictions, word_tokenizer, rng, continuations(row, word_tokenizer, whole_words)
    )
    candidates = ordinary_positions(row, word_tokenizer)
    assert np.array_equal(row.tokens, before), 'the input row was modified'
    assert np.isin(positions, candidates).all(), 'special tokens and padding are never chosen'
    assert (np.diff(positions) > 0).all(), 'positions are ascending and unique'
    kept = np.delete(np.arange(64), positions)
    assert np.array_equal(tokens[kept], before[kept]), 'tokens that were not chosen stay'
    assert not np.isin(
        tokens[positions], [word_tokenizer.pad, word_tokenizer.unk, word_tokenizer.cls, word_tokenizer.sep]
    ).any()
    assert tokens.dtype == before.dtype
    assert tokens.shape == (64,)
    count = min(max_predictions, max(1, round(rates.rate * len(candidates))))
    if whole_words:
        assert len(positions) <= count
    else:
        assert len(positions) == count


@given(st.integers(0, 10_000), st.booleans())
def test_same_seed_masks_the_same_tokens(word_tokenizer, seed, whole_words):
    row = random_row(np.random.default_rng(seed), word_tokenizer, pieces=whole_words)
    first, second = (
        mask_tokens(
            row,
            MaskRates(),
            20,
            word_tokenizer,
            np.random.default_rng(seed),
            continuations(row, word_tokenizer, whole_words),
        )
        for _ in range(2)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_different_seeds_mask_different_tokens(word_tokenizer):
    row = random_row(np.random.default_rng(0), word_tokenizer)
    found = {
        tuple(mask_tokens(row, MaskRates(), 20, word_tokenizer, np.random.default_rng(s))[1])
        for s in range(20)
    }
    assert len(found) > 15


@pytest.mark.parametrize('whole_words', [False, True])
@pytest.mark.parametrize('fractions', [(0.8, 0.1), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_fractions_of_masked_random_and_kept_tokens(word_tokenizer, fractions, whole_words):
    mask, random = fractions
    rng = np.random.default_rng(0)
    counts, total = np.zeros(3), 0
    for _ in range(400):
        row = random_row(rng, word_tokenizer)
        tokens, chosen = mask_tokens(
            row,
            MaskRates(0.3, mask, random),
            64,
            word_tokenizer,
            rng,
            continuations(row, word_tokenizer, whole_words),
        )
        new, old = tokens[chosen], row.tokens[chosen]
        counts += [
            (new == word_tokenizer.mask).sum(),
            ((new != word_tokenizer.mask) & (new != old)).sum(),
            (new == old).sum(),
        ]
        total += len(chosen)
    expected = np.array([mask, random, 1 - mask - random])
    assert total > 3000
    np.testing.assert_allclose(counts / total, expected, atol=0.025)
    assert (counts[expected == 0] <= 0.001 * total).all()  # a random token may equal the original one


def test_all_positions_are_equally_likely(word_tokenizer):
    rng = np.random.default_rng(0)
    row = make_row(range(100, 120), range(200, 220), 50, word_tokenizer)
    counts = np.zeros(50)
    for _ in range(3000):
        counts[mask_tokens(row, MaskRates(0.25), 50, word_tokenizer, rng)[1]] += 1
    frequency = counts[ordinary_positions(row, word_tokenizer)] / 3000
    np.testing.assert_allclose(frequency, 0.25, atol=0.04)


def test_random_tokens_are_sampled_from_all_ordinary_tokens(word_tokenizer):
    rng = np.random.default_rng(0)
    row = make_row([7] * 60, None, 64, word_tokenizer)
    found = np.concatenate(
        [mask_tokens(row, MaskRates(1, 0, 1), 64, word_tokenizer, rng)[0][1:61] for _ in range(200)]
    )
    assert np.isin(found, word_tokenizer.ordinary_ids).all()
    assert len(np.unique(found)) > 0.95 * len(word_tokenizer.ordinary_ids)
    assert np.abs(np.bincount(found).max() - 4) < 15


@pytest.mark.parametrize(
    ('n', 'rate', 'max_predictions', 'expected'),
    [(40, 0.15, 20, 6), (40, 0.15, 4, 4), (2, 0.15, 20, 1), (10, 1.0, 20, 10)],
)
@pytest.mark.parametrize('whole_words', [False, True])
def test_number_of_chosen_tokens(word_tokenizer, n, rate, max_predictions, expected, whole_words):
    row = make_row(range(100, 100 + n), None, 64, word_tokenizer)
    _, chosen = mask_tokens(
        row,
        MaskRates(rate),
        max_predictions,
        word_tokenizer,
        np.random.default_rng(0),
        continuations(row, word_tokenizer, whole_words),
    )
    assert len(chosen) == expected


@pytest.mark.parametrize('whole_words', [False, True])
def test_row_without_ordinary_tokens(word_tokenizer, whole_words):
    row = make_row([], [], 8, word_tokenizer)
    tokens, chosen = mask_tokens(
        row,
        MaskRates(),
        4,
        word_tokenizer,
        np.random.default_rng(0),
        continuations(row, word_tokenizer, whole_words),
    )
    assert len(chosen) == 0
    assert np.array_equal(tokens, row.tokens)


def word_numbers(row, tokenizer):
    """Number the words of a row independently of the code under test; -1 for special tokens and padding."""
    found, number, candidates = [], -1, set(ordinary_positions(row, tokenizer).tolist())
    for i, token in enumerate(row.tokens.tolist()):
        if i not in candidates:
            found.append(-1)
            continue
        if not tokenizer.token(token).startswith('##') or found[i - 1] == -1:
            number += 1
        found.append(number)
    return np.array(found)


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.integers(1, 40))
def test_words_are_chosen_whole_or_not_at_all(word_tokenizer, seed, rate, max_predictions):
    rng = np.random.default_rng(seed)
    row = random_row(rng, word_tokenizer, pieces=True)
    _, chosen = mask_tokens(
        row, MaskRates(rate), max_predictions, word_tokenizer, rng, continuations(row, word_tokenizer)
    )
    word = word_numbers(row, word_tokenizer)
    is_chosen = np.isin(np.arange(64), chosen)
    for number in range(word.max() + 1):
        assert len(set(is_chosen[word == number].tolist())) == 1
    count = min(max_predictions, max(1, round(rate * len(ordinary_positions(row, word_tokenizer)))))
    assert len(chosen) <= count
    unchosen_sizes = [
        size for n in range(word.max() + 1) if not is_chosen[word == n].any() and (size := (word == n).sum())
    ]
    assert all(size > count - len(chosen) for size in unchosen_sizes), 'another word would have fit'


def test_continuation_piece_at_a_segment_start_begins_a_word(word_tokenizer):
    row = make_row([WORD, PIECE], [PIECE, PIECE], 16, word_tokenizer)
    _, chosen = mask_tokens(
        row, MaskRates(0.5), 16, word_tokenizer, np.random.default_rng(0), continuations(row, word_tokenizer)
    )
    assert chosen.tolist() in ([1, 2], [4, 5])


def test_word_longer_than_the_budget_is_not_chosen(word_tokenizer):
    row = make_row([WORD, *[PIECE] * 9, 100], None, 16, word_tokenizer)
    for seed in range(10):
        _, chosen = mask_tokens(
            row,
            MaskRates(0.15),
            16,
            word_tokenizer,
            np.random.default_rng(seed),
            continuations(row, word_tokenizer),
        )
        assert chosen.tolist() == [11]


@given(st.integers(0, 10_000))
def test_with_single_piece_words_the_count_is_exact(word_tokenizer, seed):
    row = random_row(np.random.default_rng(seed), word_tokenizer)
    _, chosen = mask_tokens(
        row,
        MaskRates(0.2),
        40,
        word_tokenizer,
        np.random.default_rng(seed),
        continuations(row, word_tokenizer),
    )
    assert len(chosen) == max(1, round(0.2 * len(ordinary_positions(row, word_tokenizer))))


@pytest.mark.parametrize(
    'rates',
    [
        dict(rate=0),
        dict(rate=-0.1),
        dict(rate=1.1),
        dict(mask_fraction=-0.1),
        dict(random_fraction=-0.1),
        dict(mask_fraction=0.8, random_fraction=0.3),
        dict(rate=float('nan')),
    ],
)
def test_invalid_rates_are_rejected(rates):
    with pytest.raises(UserError, match='Invalid task.mask_rate='):
        MaskRates(**rates)


def test_rates_at_the_limits_are_accepted():
    fractions = [dict(mask_fraction=m, random_fraction=r) for m, r in ((0, 0), (1, 0), (0.9, 0.1))]
    for rates in (dict(rate=1), *fractions):
        assert dataclasses.asdict(MaskRates(**rates)).items() >= rates.items()
