"""Noise for denoising sequence-to-sequence models: pure functions of a text's tokens and a random generator.

A text is an array [n] of token ids without special tokens. No function makes a text longer, so the corrupted text
always fits into the row of the original.
"""

from typing import Any, NamedTuple

import numpy as np


def mask_tokens(text: np.ndarray, rate: float, mask: int, rng: np.random.Generator) -> np.ndarray:
    """Token masking: replace random tokens by `mask` (Lewis et al. 2020, section 2.2)."""
    out = text.copy()
    out[_sample_positions(len(text), rate, rng)] = mask
    return out


def delete_tokens(text: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Token deletion: remove random tokens without marking where (Lewis et al. 2020, section 2.2)."""
    return np.delete(text, _sample_positions(len(text), rate, rng))


def infill_spans(
    text: np.ndarray, rate: float, mean_length: float, mask: int, rng: np.random.Generator
) -> np.ndarray:
    """Text infilling: replace each span by a single `mask`, whatever its length (Lewis et al. 2020, section 2.2).

    Lengths are drawn from a Poisson distribution until the spans cover the fraction `rate` of the text. A span of
    length 0 inserts a mask between two tokens, as long as the text does not become longer. Spans are at least one
    token apart, unless there are too many for that.
    """
    lengths = _sample_span_lengths(_sample_count(len(text), rate, rng), mean_length, rng)
    spans, num_empty = lengths[lengths > 0], int((lengths == 0).sum())
    starts, gaps = _place_spans(len(text), spans, rng)
    num_empty = min(num_empty, int(spans.sum()) - len(spans), len(gaps))
    out, is_kept = text.copy(), np.ones(len(text), bool)
    for start, length in zip(starts, spans, strict=True):
        out[start] = mask
        is_kept[start + 1 : start + length] = False
    inserted = rng.choice(gaps, num_empty, replace=False) if num_empty > 0 else np.zeros(0, int)
    return np.insert(out[is_kept], np.searchsorted(np.flatnonzero(is_kept), inserted), mask)


def permute_sentences(text: np.ndarray, ends_sentence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sentence permutation: put the sentences into random order (Lewis et al. 2020, section 2.2).

    Args:
      text: token ids [n].
      ends_sentence: [V] booleans, true for tokens that end a sentence.
      rng: random generator for the order.
    """
    parts = [p for p in np.split(text, np.flatnonzero(ends_sentence[text]) + 1) if len(p)]
    return np.concatenate([parts[i] for i in rng.permutation(len(parts))]) if parts else text


def rotate_document(text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Document rotation: rotate the text to start at a random token (Lewis et al. 2020, section 2.2)."""
    return np.roll(text, -int(rng.integers(len(text)))) if len(text) else text


class MaskedFragment(NamedTuple):
    """A text in which one contiguous fragment is masked.

    Attributes:
      text: token ids [n] with the masked fragment.
      start: position of the first token of the fragment.
      stop: position after its last token.
    """

    text: np.ndarray
    start: int
    stop: int


def mask_fragment(
    text: np.ndarray, rate: float, mask: int, replacements: np.ndarray | None, rng: np.random.Generator
) -> MaskedFragment:
    """MASS: mask one contiguous fragment, which the decoder then predicts (Song et al. 2019, section 3.2).

    Args:
      text: token ids [n].
      rate: fraction of the text in the fragment.
      mask: id of the mask token.
      replacements: ids to draw random replacements from. As published (section 4.1), 80 % of the fragment is then
        masked, 10 % replaced at random and 10 % kept. None masks all of it.
      rng: random generator for the position of the fragment and the replacements.
    """
    size = _sample_count(len(text), rate, rng)
    start = int(rng.integers(len(text) - size + 1))
    out = text.copy()
    fragment = out[start : start + size]
    if replacements is None:
        fragment[:] = mask
    else:
        draw = rng.random(size)
        fragment[draw < 0.8] = mask
        fragment[draw >= 0.9] = rng.choice(replacements, np.count_nonzero(draw >= 0.9))
    return MaskedFragment(out, start, start + size)


def corrupt_spans(
    text: np.ndarray, rate: float, mean_length: float, sentinels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Span corruption: replace each span by a different sentinel token (T5, Raffel et al. 2020, section 3.1.4).

    Args:
      text: token ids [n].
      rate: fraction of the text in spans.
      mean_length: mean length of the spans in tokens.
      sentinels: ids of the sentinel tokens, in order of use. There are at most `len(sentinels) - 1` spans, because the
        last sentinel ends the target.
      rng: random generator for lengths and positions.

    Returns:
      The text with sentinels, and the target: each sentinel followed by the tokens it replaces, then a final
      sentinel.
    """
    count = _sample_count(len(text), rate, rng)
    n = min(max(1, round(count / mean_length)), count, len(text) - count + 1, len(sentinels) - 1)
    cuts = np.sort(rng.choice(count - 1, n - 1, replace=False)) + 1 if n > 0 else np.zeros(0, int)
    lengths = np.diff([0, *cuts, count]) if n > 0 else np.zeros(0, int)
    starts, _ = _place_spans(len(text), lengths, rng)
    source: list[Any] = []
    target: list[Any] = []
    end = 0
    for sentinel, start, length in zip(sentinels, starts, lengths, strict=False):
        source += [text[end:start], [sentinel]]
        target += [[sentinel], text[start : start + length]]
        end = start + length
    source.append(text[end:])
    target.append([sentinels[len(starts)]])
    return np.concatenate(source).astype(text.dtype), np.concatenate(target).astype(text.dtype)


def _sample_count(n: int, rate: float, rng: np.random.Generator) -> int:
    """Round `rate * n` up or down at random, so that the expected value is exact."""
    return min(n, int(rate * n + rng.random()))


def _sample_positions(n: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(n, _sample_count(n, rate, rng), replace=False)


def _sample_span_lengths(count: int, mean_length: float, rng: np.random.Generator) -> np.ndarray:
    """Draw Poisson lengths that add up to `count`; the last one is shortened."""
    lengths = rng.poisson(mean_length, max(1, count))
    while lengths.sum() < count:
        lengths = np.concatenate([lengths, rng.poisson(mean_length, max(1, count))])
    n = int(np.searchsorted(np.cumsum(lengths), count)) + 1 if count else 0
    lengths = lengths[:n]
    lengths[-1:] -= lengths.sum() - count
    return lengths


def _place_spans(n: int, lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Place spans of the given lengths at random in a text of n tokens.

    Spans are at least one token apart, and every such arrangement is equally likely. If there are too many spans for
    that, they may be adjacent.

    Returns:
      The start of each span, and the positions where an inserted token is not adjacent to a span.
    """
    slots = np.arange(n - int(lengths.sum()) + 1)
    chosen = np.sort(rng.choice(slots, len(lengths), replace=len(lengths) > len(slots)))
    shifts = np.concatenate([[0], np.cumsum(lengths)]).astype(int)  # tokens in the spans before each one
    free = np.setdiff1d(slots, chosen)
    return chosen + shifts[:-1], free + shifts[np.searchsorted(chosen, free)]
