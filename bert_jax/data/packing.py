"""Packing: the texts of a batch share rows, so that few tokens are padding."""

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Batch = dict[str, Any]
WINDOW_TEXTS = 4096  # number of texts among which those of a batch are chosen
_SAMPLED_WINDOWS = 4  # number of windows from which the shape of the rows is chosen
_MAX_CANDIDATES = 16  # largest number of shapes to compare
# Shorter rows cost less attention, so their density may be this share of the highest.
_TOLERANCE = 0.99
# Arrays of the second side of a row: the decoder's tokens, where it has other texts than the encoder.
_TARGET_ARRAYS = ('target_valid', 'targets', 'labels', 'weights', 'positions')


class Packing(NamedTuple):
    """Shape of the packed batches of a data set.

    A row has S sides: that of the texts and, in sequence-to-sequence tasks, that of their targets.

    Attributes:
      lengths: [n, S] number of tokens of each text on each side.
      batch_size: number of texts in a batch.
      num_rows: number of rows in a batch.
      texts_per_row: largest number of texts in a row, K.
      row_lengths: for each side the usual lengths of the rows, ascending; all rows of a batch have the same length.
      multiple: number of which every length of rows is a multiple.
      density: share of the tokens of a batch that are not padding, in a sample.
    """

    lengths: np.ndarray
    batch_size: int
    num_rows: int
    texts_per_row: int
    row_lengths: Sequence[np.ndarray]
    multiple: int
    density: float

    def describe(self) -> str:
        """Describe the shape of the batches and their padding."""
        ranges = [dict.fromkeys((side[0], side[-1])) for side in self.row_lengths]
        lengths = ' and '.join(' to '.join(map(str, ends)) for ends in ranges)
        rows = f'{self.num_rows} row' + 's' * (self.num_rows > 1)
        return (
            f'{self.batch_size} texts into {rows} of {lengths} tokens, {1 - self.density:.1%} of them padding'
        )

    def split_batches(self, texts: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
        """Split texts into batches with nearly equal numbers of tokens per text.

        Args:
          texts: indices of texts.
          sizes: number of texts in each batch; their sum is at least the number of texts.

        Returns:
          For each batch the positions of its texts in `texts`, ascending.
        """
        batch = balance(self.lengths[texts], sizes)
        return [np.flatnonzero(batch == i) for i in range(len(sizes))]

    def assign_rows(self, texts: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
        """Distribute the texts of a batch over its rows.

        Returns:
          For each row the positions of its texts in `texts`; and the length of all rows on each side.
        """
        lengths = self.lengths[texts]
        row = balance(lengths, [self.texts_per_row] * self.num_rows)
        sides = zip(_longest_row(row, lengths).tolist(), self.row_lengths, strict=True)
        widths = [self._padded_width(longest, usual) for longest, usual in sides]
        return [np.flatnonzero(row == i) for i in range(self.num_rows)], widths

    def _padded_width(self, longest: int, usual: np.ndarray) -> int:
        """Return the length of rows of which the longest has `longest` tokens."""
        if longest <= usual[-1]:
            return int(usual[np.searchsorted(usual, longest)])
        # Lengths far from the usual ones are rare, and each is compiled, so that they have coarser steps.
        step = self.multiple if longest <= usual[-1] + 4 * self.multiple else 4 * self.multiple
        return -(-longest // step) * step


def choose(
    lengths: np.ndarray, batch_size: int, row_length: int, row_multiple: int, num_lengths: int
) -> Packing:
    """Choose the shape of packed batches: the shortest rows among those of which nearly the fewest tokens are padding.

    Args:
      lengths: [n] or [n, S] number of tokens of each text, on each of the S sides of a row.
      batch_size: number of texts in a batch, a multiple of `row_multiple`.
      row_length: number of tokens in a row without packing, at least that of the longest text. Packed rows have about
        half to twice this number.
      row_multiple: number of which the number of rows in a batch is a multiple.
      num_lengths: largest number of usual lengths of the rows, or of pairs of the lengths of two sides, each of which is
        compiled.
    """
    lengths = lengths.reshape(len(lengths), -1)
    num_lengths = round(num_lengths ** (1 / lengths.shape[1]))  # on each side
    multiple = max(2, row_length // 32)
    batches = _sample_batches(lengths, batch_size)
    per_row = np.array([2 * row_length, row_length // 2])
    first, last = np.ceil(lengths.mean(0).max() * batch_size / per_row / row_multiple).astype(int)
    last = max(1, min(last, batch_size // row_multiple))
    counts = np.unique(np.linspace(min(first, last), last, _MAX_CANDIDATES).astype(int)) * row_multiple
    candidates = []
    for num_rows in counts.tolist():
        texts_per_row = min(batch_size, -(-3 * batch_size // (2 * num_rows)))
        rows = [(balance(batch, [texts_per_row] * num_rows), batch) for batch in batches]
        usual, num_tokens = [], 0
        for longest in np.array([_longest_row(row, batch) for row, batch in rows]).T:
            usual.append(choose_bucket_lengths(longest, num_lengths, multiple))
            num_tokens += num_rows * usual[-1][np.searchsorted(usual[-1], longest)].sum()
        density = float(sum(batch.sum() for batch in batches) / num_tokens)
        candidates.append(Packing(lengths, batch_size, num_rows, texts_per_row, usual, multiple, density))
    least = _TOLERANCE * max(candidate.density for candidate in candidates)
    return [candidate for candidate in candidates if candidate.density >= least][-1]


def _sample_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the lengths of the texts in the batches of some random windows."""
    num_batches = window_size(len(lengths), batch_size)
    size = num_batches * batch_size
    num_windows = min(_SAMPLED_WINDOWS, max(1, len(lengths) // size))
    shuffled = np.resize(np.random.default_rng(0).permutation(len(lengths)), (num_windows, size))
    batches = []
    for window in lengths[shuffled]:
        batch = balance(window, [batch_size] * num_batches)
        batches += [window[batch == i] for i in range(num_batches)]
    return batches


def window_size(num_texts: int, batch_size: int) -> int:
    """Return the number of batches that are chosen together; they hold at most all texts once."""
    return max(1, min(WINDOW_TEXTS, num_texts) // batch_size)


def balance(lengths: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Distribute texts over bins so that the numbers of tokens, divided by the sizes of the bins, are nearly equal.

    The longest text comes first, and each goes to the emptiest bin that holds fewer texts than its size (Graham 1969,
    longest processing time first). A text or bin with several sides is as long as its longest side, relative to the mean
    of the side.

    Args:
      lengths: [n, S] number of tokens of each text on each side.
      sizes: largest number of texts in each bin.

    Returns:
      [n] the bin of each text.
    """
    totals = lengths.sum(0)
    weights = lengths * (totals[0] / np.maximum(totals, 1))
    loads, counts = [[0.0] * lengths.shape[1] for _ in sizes], [0] * len(sizes)
    heap = [(0.0, i) for i in range(len(sizes))]
    bins = np.empty(len(lengths), np.int64)
    for text in np.argsort(-weights.max(1), kind='stable').tolist():
        _, i = heapq.heappop(heap)
        bins[text] = i
        loads[i] = [a + b for a, b in zip(loads[i], weights[text].tolist(), strict=True)]
        counts[i] += 1
        if counts[i] < sizes[i]:
            heapq.heappush(heap, (max(loads[i]) / sizes[i], i))
    return bins


def _longest_row(row: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the number of tokens of the longest row on each side, [S], of texts in the rows `row` [n]."""
    return np.array([np.bincount(row, side).max() for side in lengths.T]).astype(int)


def pack_row(examples: Sequence[Batch], widths: Sequence[int], texts_per_row: int) -> Batch:
    """Join the examples of several texts in one row.

    Args:
      examples: arrays of each text. `valid` [T] marks its real tokens; arrays of the same shape have an entry for each
        token, all others describe the text. If an example consists of E texts, `valid` is [E, T]. If it has a target,
        `target_valid` [U] marks the target's real tokens, and the `_TARGET_ARRAYS` have its shape.
      widths: length of the row, T, and of its second side, U, if there are targets.
      texts_per_row: number of examples for which the row has room, K.

    Returns:
      The arrays of the row. Those of tokens are [T] or [U]; `valid` and `target_valid` number the texts from 1, and are 0
      on padding. Those that describe a text are [K, ...], and zero (like `row_weight`) where there is no text. `starts`,
      [K] or [K, E], is the position of the first token of each text.
    """
    row: Batch = {}
    targets = _TARGET_ARRAYS if 'target_valid' in examples[0] else ()
    for key, value in examples[0].items():
        values = [example[key] for example in examples]
        mask, width = ('target_valid', widths[-1]) if key in targets else ('valid', widths[0])
        valid = [example[mask] for example in examples]
        if key == mask:
            counts = np.stack([v.sum(-1) for v in valid]).ravel()
            row[key] = _pad(np.repeat(np.arange(1, len(counts) + 1, dtype=np.int32), counts), width)
        elif np.shape(value) == valid[0].shape:
            row[key] = _pad(np.concatenate([x[v] for x, v in zip(values, valid, strict=True)]), width)
        else:
            row[key] = _pad(np.stack(values), texts_per_row)
        if key == 'valid':
            starts = (np.cumsum(counts) - counts).astype(np.int32)
            row['starts'] = _pad(starts.reshape(len(examples), *valid[0].shape[:-1]), texts_per_row)
    return row


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    """Append zeros along the first axis."""
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def choose_bucket_lengths(lengths: np.ndarray, num_buckets: int, multiple: int = 1) -> np.ndarray:
    """Choose the bucket lengths that pad texts of the given lengths least, by dynamic programming.

    Args:
      lengths: [n] number of tokens of each text.
      num_buckets: largest number of bucket lengths.
      multiple: every bucket length is a multiple of this number.

    Returns:
      At most `num_buckets` lengths, ascending; the last one fits the longest text.
    """
    values, counts = np.unique(-(-lengths // multiple) * multiple, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # After k iterations, least[j] is the minimum number of tokens, padding included, when k buckets
    # hold the texts with the j shortest lengths.
    least = np.array([0.0] + [np.inf] * len(values))
    choices = []
    for _ in range(min(num_buckets, len(values))):
        totals = [least[:j] + (below[j] - below[:j]) * values[j - 1] for j in range(1, len(values) + 1)]
        choices.append([int(t.argmin()) for t in totals])
        least = np.array([np.inf, *(t.min() for t in totals)])
    chosen, j = [], len(values)
    for choice in reversed(choices):
        chosen.append(values[j - 1])
        j = choice[j - 1]
    return np.array(chosen[::-1])
