"""Noise for sequence to sequence: each a pure function of a text's tokens and a random generator.

A text is [n] token ids without special tokens. What a noise may not do it never does: no text grows, so that
a row that held the text holds what is left of it.
"""

from typing import Any, NamedTuple

import numpy as np


def mask_tokens(text: np.ndarray, rate: float, mask: int, rng: np.random.Generator) -> np.ndarray:
    """Token masking: random tokens become `mask` (Lewis et al. 2020, section 2.2)."""
    out = text.copy()
    out[_chosen(len(text), rate, rng)] = mask
    return out


def delete_tokens(text: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Token deletion: random tokens are gone, and what is left does not say where (section 2.2)."""
    return np.delete(text, _chosen(len(text), rate, rng))


def infill(text: np.ndarray, rate: float, mean: float, mask: int, rng: np.random.Generator) -> np.ndarray:
    """Text infilling: spans become one `mask` each, however long they are (section 2.2).

    Lengths are drawn from a Poisson distribution until they cover the share `rate` of the text; a span of no
    length puts a mask between two tokens, as long as the text does not grow by it. At least one token stands
    between two spans.
    """
    lengths = _span_lengths(_count(len(text), rate, rng), mean, rng)
    spans, empty = lengths[lengths > 0], int((lengths == 0).sum())
    starts, slots = _places(len(text), spans, rng)
    empty = min(empty, int(spans.sum()) - len(spans), len(slots))
    kept = np.ones(len(text), bool)
    masks = np.zeros(len(text), bool)
    for start, length in zip(starts, spans, strict=True):
        kept[start : start + length] = False
        masks[start] = True
    out = np.where(masks, mask, text)
    out, index = out[kept | masks], np.flatnonzero(kept | masks)
    between = rng.choice(slots, empty, replace=False) if empty > 0 else np.zeros(0, int)
    return np.insert(out, np.searchsorted(index, between), mask)


def permute_sentences(text: np.ndarray, stops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sentence permutation: the sentences in random order (section 2.2).

    Args:
      text: [n].
      stops: [V] booleans, the tokens that end a sentence.
      rng: the order.
    """
    parts = np.split(text, np.flatnonzero(stops[text]) + 1)
    parts = [p for p in parts if len(p)]
    return np.concatenate([parts[i] for i in rng.permutation(len(parts))]) if parts else text


def rotate(text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Document rotation: the text begins at a random token, and goes on with its beginning (section 2.2)."""
    return np.roll(text, -int(rng.integers(len(text)))) if len(text) else text


class Fragment(NamedTuple):
    """A text with a gap.

    Attributes:
      text: [n], with masks in the gap.
      start, stop: where the gap is.
    """

    text: np.ndarray
    start: int
    stop: int


def mass(text: np.ndarray, rate: float, mask: int, rng: np.random.Generator) -> Fragment:
    """One fragment is masked, token by token; the decoder restores it alone (Song et al. 2019, section 3.2)."""
    size = _count(len(text), rate, rng)
    start = int(rng.integers(len(text) - size + 1))
    out = text.copy()
    out[start : start + size] = mask
    return Fragment(out, start, start + size)


def spans(
    text: np.ndarray, rate: float, mean: float, sentinels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Span corruption: each span becomes a sentinel of its own (Raffel et al. 2020, section 3.1.4).

    Args:
      text: [n].
      rate: share of the text in spans.
      mean: length of the spans, on average.
      sentinels: their ids, in the order of use; one more than the spans that there may be.
      rng: where the spans are.

    Returns:
      The text with sentinels, and for each span its sentinel and its tokens, with one sentinel more at the end.
    """
    count = _count(len(text), rate, rng)
    n = min(max(1, round(count / mean)), count, len(text) - count + 1, len(sentinels) - 1)
    cuts = np.sort(rng.choice(count - 1, n - 1, replace=False)) + 1 if n > 0 else np.zeros(0, int)
    lengths = np.diff([0, *cuts, count]) if n > 0 else np.zeros(0, int)
    starts, _ = _places(len(text), lengths, rng)
    source: list[Any] = []
    target: list[Any] = []
    end = 0
    for sentinel, start, length in zip(sentinels, starts, lengths, strict=False):
        source += [text[end:start], [sentinel]]
        target += [[sentinel], text[start : start + length]]
        end = start + length
    target.append([sentinels[len(starts)]])
    return (
        np.concatenate([*source, text[end:]]).astype(text.dtype),
        np.concatenate(target).astype(text.dtype),
    )


def _count(n: int, rate: float, rng: np.random.Generator) -> int:
    """A share of n things as a whole number, right on average."""
    return min(n, int(rate * n + rng.random()))


def _chosen(n: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(n, _count(n, rate, rng), replace=False)


def _span_lengths(count: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson lengths whose sum is `count`; the last is cut."""
    lengths = rng.poisson(mean, max(1, count))
    while lengths.sum() < count:
        lengths = np.concatenate([lengths, rng.poisson(mean, max(1, count))])
    n = int(np.searchsorted(np.cumsum(lengths), count)) + 1 if count else 0
    lengths = lengths[:n]
    if n:
        lengths[-1] -= lengths.sum() - count
    return lengths


def _places(n: int, lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where spans of these lengths begin in n tokens, one token apart or more; and free places between tokens.

    Every arrangement is equally likely. Spans too many to be apart are next to each other.
    """
    kept = n - int(lengths.sum())
    slots = np.arange(kept + 1)
    if len(lengths) > len(slots):
        chosen = np.sort(rng.choice(slots, len(lengths), replace=True))
    else:
        chosen = np.sort(rng.choice(slots, len(lengths), replace=False))
    starts = chosen + np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(int) if len(lengths) else chosen
    free = np.setdiff1d(slots, chosen)
    before = np.searchsorted(chosen, free, side='left')
    return starts, free + np.concatenate([[0], np.cumsum(lengths)]).astype(int)[before]
