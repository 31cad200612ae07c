"""Batches of rows for training and evaluation.

A training batch, with the order of its rows and their noise, is a pure function of the seed and the step. Each process
makes only its own part of a batch.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from bert_jax.core import worker_pool
from bert_jax.core.errors import UserError
from bert_jax.data.rows import HEADER

Batch = dict[str, Any]  # arrays and NumPy scalars by name
MakeExample = Callable[[np.ndarray, np.random.Generator], Batch]
MAX_WINDOW_SIZE = 32  # largest number of batches whose rows are sorted by length together


class Batches:
    """`batches(step)` returns the global batch of a step, or the part that one process needs.

    There is no iterator state. The rows form an infinite stream that is reshuffled every epoch. If `rows` has
    `weights`, each corpus is shuffled separately and the stream samples the corpora by these weights. Position i of
    the stream gets its own noise, seeded by (seed, i), and batch `step` starts at position `step * batch_size`. The
    global batch is the same on one process and on many.

    With several `length_buckets`, short texts need less padding. The rows of each window of `window_size` batches are
    sorted by length and regrouped into batches, which come in random order. A window is at most one epoch long. If it
    spans two epochs, the batches with rows of the first epoch come before the others. Each batch is cut to the
    shortest of a few lengths that fits all its rows, see `choose_bucket_lengths`. The result still depends on the step
    only.

    Args:
      rows: random access to rows [4 + T], or to groups of rows [..., 4 + T].
      make_example: turns a row and a random generator into an example, a dict of arrays.
      batch_size: number of rows in the global batch.
      seed: seed of order and noise.
      length_buckets: largest number of different batch lengths; 1 always uses the full length. Only applies to
        `rows` in memory, as a single array.
      local_rows: indices of the rows of each global batch to return, in order; None returns all.
      first_position: position of the stream at which step 0 starts: the number of rows that earlier `Batches` of the
        same rows and seed have returned.

    Attributes:
      batch_size: number of rows in the global batch.
      window_size: number of batches whose rows are sorted by length together.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        make_example: MakeExample,
        batch_size: int,
        seed: int,
        *,
        length_buckets: int = 1,
        local_rows: np.ndarray | None = None,
        first_position: int = 0,
    ):
        if not len(rows):
            raise UserError('No rows to train on. Prepare some text first.')
        self.batch_size, self._first_position = batch_size, first_position
        self.window_size = max(1, min(MAX_WINDOW_SIZE, len(rows) // batch_size))
        self._rows, self._make_example, self._seed = rows, make_example, seed
        self._local_rows = np.arange(batch_size) if local_rows is None else local_rows
        self._stream = _shuffled_stream(rows, seed)
        self._lengths, self._bucket_lengths = _lengths_and_buckets(rows, length_buckets)

    def __call__(self, step: int) -> Batch:
        positions = self._positions(step, 1)
        width = None
        if self._bucket_lengths is not None:
            window, longest = self._window(step // self.window_size)
            positions = window[step % self.window_size]
            width = _padded_width(longest[step % self.window_size], self._bucket_lengths)
        return stack([self._example(int(i), width) for i in positions[self._local_rows]])

    def _positions(self, step: int, num_steps: int) -> np.ndarray:
        """Return the stream positions of the rows of `num_steps` batches from `step` on."""
        return self._first_position + np.arange(step * self.batch_size, (step + num_steps) * self.batch_size)

    def _example(self, position: int, width: int | None) -> Batch:
        row = self._rows[self._stream[position]][..., :width]
        return self._make_example(row, np.random.default_rng((self._seed, position)))

    @functools.lru_cache(1)  # noqa: B019
    def _window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Regroup the rows of a window into batches of similar length.

        Returns:
          The stream positions of the rows in each batch, [window size, batch size], and the length of the
          longest row in each batch, [window size].
        """
        positions = self._positions(number * self.window_size, self.window_size)
        epochs = positions // len(self._rows)
        lengths = self._lengths[[self._stream[int(i)] for i in positions]]
        batches = np.lexsort((lengths, epochs)).reshape(self.window_size, -1)
        batches = np.random.default_rng((self._seed, number)).permutation(batches)
        batches = batches[np.argsort(epochs[batches[:, 0]], kind='stable')]
        return positions[batches], lengths[batches].max(1)

    def iterate(self, start: int, stop: int, prefetch: int = 4, workers: int = 0) -> Iterator[Batch]:
        """Return an iterator over the batches of steps `start` to `stop`, which makes them ahead of time.

        Args:
          start: first step.
          stop: step after the last one.
          prefetch: number of steps that the background thread, or each worker process, works ahead.
          workers: number of processes that make batches; 0 uses one background thread.

        Raises:
          UserError: if a worker process dies.
        """
        died = 'A data-loading worker process died, possibly out of memory (see the output above). Lower train.workers.'
        return worker_pool.map_ahead(self, range(start, stop), workers, prefetch * (workers or 1), died)


def _shuffled_stream(rows: Any, seed: int) -> Any:
    """Return the infinite shuffled stream: element i is the index of the row at position i."""
    sizes = [len(rows)] if getattr(rows, 'weights', None) is None else rows.corpus_sizes
    ends = np.cumsum(sizes).tolist()
    ranges = [(end - n, end) for n, end in zip(sizes, ends, strict=True) if n]
    streams = [grain.MapDataset.range(*indices).seed(seed).shuffle().repeat() for indices in ranges]
    if len(streams) == 1:
        return streams[0]
    return grain.MapDataset.mix(streams, weights=[weight for weight in rows.weights if weight])


def stack(examples: Sequence[Batch]) -> Batch:
    """Stack examples with equal keys and shapes into a batch."""
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def evaluation_batches(
    rows: Sequence[np.ndarray],
    make_example: MakeExample,
    batch_size: int,
    seed: int = 0,
    *,
    limit: int = 0,
    length_buckets: int = 1,
    local_rows: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield every row once, for evaluation; noise depends on (seed, row) only.

    Args:
      rows, make_example, batch_size, seed, local_rows: see `Batches`.
      limit: number of rows to use, from the first; 0 uses all.
      length_buckets: see `Batches`; with more than one, the shortest rows come first.

    Yields:
      The row indices of the global batch, and the batch. Its `row_weight` [B] float32 is 1 for a real row and 0
      for the copies that fill up the last batch.
    """
    n = min(len(rows), limit or len(rows))
    lengths, bucket_lengths = _lengths_and_buckets(rows, length_buckets)
    order = np.arange(n) if bucket_lengths is None else np.argsort(lengths[:n], kind='stable')
    for start in range(0, n, batch_size):
        indices = order[start : start + batch_size]
        width = None if bucket_lengths is None else _padded_width(lengths[indices[-1]], bucket_lengths)
        slots = np.arange(batch_size) if local_rows is None else local_rows
        is_real = slots < len(indices)
        filled = indices[np.where(is_real, slots, 0)]
        batch = stack([make_example(rows[i][..., :width], np.random.default_rng((seed, i))) for i in filled])
        yield indices, {**batch, 'row_weight': is_real.astype(np.float32)}


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


def _lengths_and_buckets(rows: Any, length_buckets: int) -> tuple[Any, Any]:
    """Return the length of each row and the bucket lengths, or (None, None) to use the full length."""
    if length_buckets == 1 or not isinstance(rows, np.ndarray):
        return None, None
    lengths = rows[..., 0].reshape(len(rows), -1).max(1).astype(int)
    multiple = max(1, (rows.shape[-1] - HEADER) // 32)
    return lengths, choose_bucket_lengths(lengths, length_buckets, multiple)


def _padded_width(longest: int, bucket_lengths: np.ndarray) -> int:
    """Return the width of a row, header included, in the shortest bucket that holds `longest` tokens."""
    return HEADER + int(bucket_lengths[np.searchsorted(bucket_lengths, longest)])
