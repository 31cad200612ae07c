"""Noise functions change only what they should, at the given rate, and repeat for the same seed."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data import corruption

MASK, STOP = 1, 2
REPLACEMENTS = np.arange(10, 30)
ENDS_SENTENCE = np.arange(1000) == STOP
SENTINELS = np.arange(900, 1000)
SEEDS, RATES = st.integers(0, 10_000), st.floats(0, 1)
TEXTS = st.lists(st.integers(2, 800), max_size=40).map(lambda t: np.array(t, np.int32))


def distinct(n):
    return np.arange(10, 10 + n, dtype=np.int32)


def is_subsequence(part, whole):
    """Return whether `part` is `whole` without some of its tokens."""
    rest = iter(whole.tolist())
    return all(token in rest for token in part.tolist())


NOISES = {
    'mask': lambda text, rate, rng: corruption.mask_tokens(text, rate, MASK, rng),
    'delete': corruption.delete_tokens,
    'infill': lambda text, rate, rng: corruption.infill_spans(text, rate, 3.0, MASK, rng),
    'permute': lambda text, rate, rng: corruption.permute_sentences(text, ENDS_SENTENCE, rng),
    'rotate': lambda text, rate, rng: corruption.rotate_document(text, rng),
    'mass': lambda text, rate, rng: corruption.mask_fragment(text, rate, MASK, REPLACEMENTS, rng).text,
    'masked_seq2seq': lambda text, rate, rng: corruption.mask_fragment(text, rate, MASK, None, rng).text,
    'spans': lambda text, rate, rng: corruption.corrupt_spans(text, rate, 3.0, SENTINELS, rng)[0],
}


@pytest.mark.parametrize('noise', NOISES)
@given(TEXTS, RATES, SEEDS)
def test_noise_never_lengthens_or_modifies_its_input_and_repeats_for_a_seed(noise, text, rate, seed):
    before = text.copy()
    first, second = (NOISES[noise](text, rate, np.random.default_rng(seed)) for _ in range(2))
    assert len(first) <= len(text) + (noise == 'spans' and rate == 0)
    np.testing.assert_array_equal(text, before)
    np.testing.assert_array_equal(first, second)


@given(TEXTS, RATES, SEEDS)
def test_masking_changes_only_masked_tokens(text, rate, seed):
    out = corruption.mask_tokens(text, rate, MASK, np.random.default_rng(seed))
    assert len(out) == len(text)
    assert (out[out != text] == MASK).all()
    assert abs((out == MASK).sum() - rate * len(text)) <= 1


@given(st.integers(0, 40), RATES, SEEDS)
def test_deletion_keeps_order(n, rate, seed):
    out = corruption.delete_tokens(distinct(n), rate, np.random.default_rng(seed))
    assert (np.diff(out) > 0).all()
    assert abs(len(out) - (1 - rate) * n) <= 1


@given(st.integers(0, 60), RATES, st.floats(0.5, 8), SEEDS)
def test_infilling_keeps_the_other_tokens_in_order_with_a_mask_per_gap(n, rate, mean, seed):
    text = distinct(n)
    out = corruption.infill_spans(text, rate, mean, MASK, np.random.default_rng(seed))
    left = out[out != MASK]
    assert is_subsequence(left, text)
    assert abs(n - len(left) - rate * n) <= 1
    gaps = set(np.flatnonzero(np.diff([9, *left.tolist(), 10 + n]) > 1).tolist())
    masks = np.flatnonzero(out == MASK)
    kept_before = [int((out[:m] != MASK).sum()) for m in masks]  # kept tokens before each mask
    assert gaps <= set(kept_before)
    if rate < 0.4:  # enough room to keep all spans apart
        assert len(set(kept_before)) == len(kept_before)


@given(TEXTS, SEEDS)
def test_permutation_keeps_sentences(text, seed):
    def sentences(t):
        parts = np.split(t, np.flatnonzero(t == STOP) + 1)
        return collections.Counter(tuple(p.tolist()) for p in parts if len(p))

    out = corruption.permute_sentences(text, ENDS_SENTENCE, np.random.default_rng(seed))
    assert sorted(out.tolist()) == sorted(text.tolist())
    if not len(text) or text[-1] == STOP:
        assert sentences(out) == sentences(text)


@given(st.integers(1, 40), SEEDS)
def test_rotation_is_a_rotation(n, seed):
    text = distinct(n)
    out = corruption.rotate_document(text, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.roll(out, int(out[0]) - 10), text)


@given(TEXTS, RATES, SEEDS, st.sampled_from([None, REPLACEMENTS]))
def test_one_fragment_is_masked(text, rate, seed, replacements):
    rng = np.random.default_rng(seed)
    out, start, stop = corruption.mask_fragment(text, rate, MASK, replacements, rng)
    if replacements is None:
        assert (out[start:stop] == MASK).all()
    np.testing.assert_array_equal(np.concatenate([out[:start], text[start:stop], out[stop:]]), text)
    assert abs(stop - start - rate * len(text)) <= 1


def test_mass_masks_replaces_and_keeps_as_published():
    text = distinct(20_000)
    rng = np.random.default_rng(0)
    out, start, stop = corruption.mask_fragment(text, 0.5, 3, np.array([1, 2]), rng)
    found = out[start:stop]
    shares = [np.mean(found == 3), np.mean(found < 3), np.mean(found == text[start:stop])]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


@given(TEXTS, RATES, st.floats(0.5, 8), SEEDS)
def test_inserting_the_spans_restores_the_text(text, rate, mean, seed):
    source, target = corruption.corrupt_spans(text, rate, mean, SENTINELS, np.random.default_rng(seed))
    used = [t for t in target.tolist() if t >= 900]
    assert used == list(range(900, 900 + len(used)))
    assert [t for t in source.tolist() if t >= 900] == used[:-1]
    parts = dict(zip(used, np.split(target, np.flatnonzero(target >= 900))[1:], strict=True))
    restored = [x for t in source.tolist() for x in (parts[t][1:].tolist() if t >= 900 else [t])]
    assert restored == text.tolist()
    assert abs(len(target) - len(used) - rate * len(text)) <= 1


def test_infilling_matches_the_rate_and_mean_length():
    rng = np.random.default_rng(0)
    text = distinct(200)
    removed, masks, empty, runs = [], [], [], []
    for _ in range(500):
        out = corruption.infill_spans(text, 0.3, 3.0, MASK, rng)
        left = out[out != MASK]
        gaps = np.diff([9, *left.tolist(), 210]) - 1
        removed.append(200 - len(left))
        masks.append((out == MASK).sum())
        runs += gaps[gaps > 0].tolist()
        empty.append(masks[-1] - (gaps > 0).sum())
    assert np.mean(removed) == pytest.approx(60, abs=0.1)
    assert np.mean(masks) == pytest.approx(60 / 3, rel=0.06)  # Poisson lengths with mean 3
    assert np.mean(empty) / np.mean(masks) == pytest.approx(np.exp(-3), rel=0.3)
    assert np.mean(runs) == pytest.approx(3 / (1 - np.exp(-3)), rel=0.06)


def test_all_positions_are_equally_likely():
    rng, hits = np.random.default_rng(0), np.zeros(12)
    for _ in range(4000):
        out = corruption.infill_spans(distinct(12), 0.25, 1.0, MASK, rng)
        hits[np.setdiff1d(np.arange(12), out[out != MASK] - 10)] += 1
    np.testing.assert_allclose(hits / 4000, 0.25, atol=0.03)
