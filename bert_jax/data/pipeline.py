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
from bert_jax.data import packing as packing_lib
from bert_jax.data.packing import Packing, choose_bucket_lengths
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

    With `packing`, the texts of a batch share fewer rows, see `packing.pack_row`. The texts of each window are regrouped
    into batches with nearly equal numbers of tokens, with those of the first epoch before the others.

    Args:
      rows: random access to rows [4 + T], or to groups of rows [..., 4 + T].
      make_example: turns a row and a random generator into an example, a dict of arrays.
      batch_size: number of texts in the global batch.
      seed: seed of order and noise.
      length_buckets: largest number of different batch lengths; 1 always uses the full length. Only applies to
        `rows` in memory, as a single array.
      packing: shape of packed batches, whose lengths are those of `rows`; None puts each text in a row to itself.
      local_rows: indices of the rows of each global batch to return, in order; None returns all.
      first_position: position of the stream at which step 0 starts: the number of rows that earlier `Batches` of the
        same rows and seed have returned.
      make_example_at: returns the function that takes the place of `make_example` in the batch of a step, for noise
        that changes during a run; None uses `make_example` at each step.

    Attributes:
      batch_size: number of texts in the global batch, which are its rows without packing.
      window_size: number of batches whose rows are regrouped together.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        make_example: MakeExample,
        batch_size: int,
        seed: int,
        *,
        length_buckets: int = 1,
        packing: Packing | None = None,
        local_rows: np.ndarray | None = None,
        first_position: int = 0,
        make_example_at: Callable[[int], MakeExample] | None = None,
    ):
        if not len(rows):
            raise UserError('No rows to train on. Prepare some text first.')
        self.batch_size, self._first_position = batch_size, first_position
        self.window_size = max(1, min(MAX_WINDOW_SIZE, len(rows) // batch_size))
        self._rows, self._make_example, self._seed = rows, make_example, seed
        self._make_example_at = make_example_at
        self._stream = _shuffled_stream(rows, seed)
        self._lengths, self._bucket_lengths = _lengths_and_buckets(rows, length_buckets)
        self._packing, num_rows = packing, batch_size
        if packing:
            self.window_size, num_rows = packing_lib.window_size(len(rows), batch_size), packing.num_rows
        self._local_rows = np.arange(num_rows) if local_rows is None else local_rows

    def __call__(self, step: int) -> Batch:
        if self._packing:
            return self._packed_batch(step, self._packing)
        if self._bucket_lengths is None:
            positions, width = self._positions(step, 1)[self._local_rows], None
            texts = self._texts(positions)
        else:
            window, longest = self._window(step // self.window_size)
            texts, positions = window[:, step % self.window_size, self._local_rows]
            width = _padded_width(longest[step % self.window_size], self._bucket_lengths)
        make_example = self._make_example_at(step) if self._make_example_at else self._make_example
        pairs = zip(texts, positions, strict=True)
        return stack([self._example(make_example, *pair, width) for pair in pairs])

    def _positions(self, step: int, num_steps: int) -> np.ndarray:
        """Return the stream positions of the texts of `num_steps` batches from `step` on."""
        return self._first_position + np.arange(step * self.batch_size, (step + num_steps) * self.batch_size)

    def _texts(self, positions: np.ndarray) -> np.ndarray:
        """Return the index in `rows` of each position of the stream."""
        return np.array([self._stream[int(i)] for i in positions], np.int64)

    def _example(self, make_example: MakeExample, text: int, position: int, width: int | None) -> Batch:
        row = self._rows[int(text)][..., :width]
        return make_example(row, np.random.default_rng((self._seed, int(position))))

    def _packed_batch(self, step: int, packing: Packing) -> Batch:
        texts, positions = self._packed_window(step // self.window_size)[step % self.window_size]
        rows, widths = packing.assign_rows(texts)
        batch = []
        for i in self._local_rows:
            pairs = zip(texts[rows[i]], positions[rows[i]], strict=True)
            examples = [self._example(self._make_example, *pair, None) for pair in pairs]
            batch.append(packing_lib.pack_row(examples, widths, packing.texts_per_row))
        return stack(batch)

    @functools.lru_cache(1)  # noqa: B019
    def _packed_window(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Regroup the texts of a window into batches with nearly equal numbers of tokens.

        Returns:
          The indices in `rows` and the stream positions of the texts in each batch.
        """
        positions = self._positions(number * self.window_size, self.window_size)
        texts = self._texts(positions)
        groups = [np.arange(len(texts))]
        if self.window_size > 1:
            groups = self._packed_groups(texts, positions // len(self._rows), number)
        return [(texts[group], positions[group]) for group in groups]

    def _packed_groups(self, texts: np.ndarray, epochs: np.ndarray, number: int) -> list[np.ndarray]:
        """Group the texts of a window, which is at most one epoch long, with those of the first epoch first."""
        parts = []
        for part in (np.flatnonzero(epochs == epochs[0]), np.flatnonzero(epochs > epochs[0])):
            full, rest = divmod(len(part), self.batch_size)
            sizes = [self.batch_size] * full + [rest] * (rest > 0)
            groups = self._packing.split_batches(texts[part], sizes)  # type: ignore[union-attr]
            parts.append([part[group] for group in groups])
        first, second = parts
        mixed = []  # the batch in which the first epoch ends
        if len(first) + len(second) > self.window_size:
            mixed = [np.concatenate([first.pop(), second.pop()])]
        rng = np.random.default_rng((self._seed, number))
        order = [[part[i] for i in rng.permutation(len(part))] for part in parts]
        return [*order[0], *mixed, *order[1]]

    @functools.lru_cache(1)  # noqa: B019
    def _window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Regroup the rows of a window into batches of similar length.

        Returns:
          The indices in `rows` and the stream positions of the rows in each batch, [2, window size, batch size], and the
          length of the longest row in each batch, [window size].
        """
        positions = self._positions(number * self.window_size, self.window_size)
        texts, epochs = self._texts(positions), positions // len(self._rows)
        lengths = self._lengths[texts]
        batches = np.lexsort((lengths, epochs)).reshape(self.window_size, -1)
        batches = np.random.default_rng((self._seed, number)).permutation(batches)
        batches = batches[np.argsort(epochs[batches[:, 0]], kind='stable')]
        return np.stack([texts[batches], positions[batches]]), lengths[batches].max(1)

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


def packed_evaluation_batches(
    rows: Sequence[np.ndarray],
    make_example: MakeExample,
    seed: int,
    packing: Packing,
    *,
    limit: int = 0,
    local_rows: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield every text once, for evaluation, in packed rows; noise depends on (seed, text) only.

    Args:
      rows, make_example, seed, packing, local_rows: see `Batches`.
      limit: number of texts to use, from the first; 0 uses all.

    Yields:
      [R K] the index of the text in each slot of the global batch of R rows for K texts, -1 in those without a text,
      whose `row_weight` is 0; and the batch.
    """
    n = min(len(rows), limit or len(rows))
    sizes = [packing.batch_size] * -(-n // packing.batch_size)
    for texts in packing.split_batches(np.arange(n), sizes):
        assigned, widths = packing.assign_rows(texts)
        slots = np.full((packing.num_rows, packing.texts_per_row), -1)
        batch = []
        for i, positions in enumerate(assigned):
            slots[i, : len(positions)] = texts[positions]
            if local_rows is None or i in local_rows:
                # A row without texts has one of weight 0.
                filled = texts[positions if len(positions) else [0]]
                examples = [make_example(rows[t], np.random.default_rng((seed, t))) for t in filled]
                batch.append(packing_lib.pack_row(examples, widths, packing.texts_per_row))
                batch[-1]['row_weight'] *= np.float32(len(positions) > 0)
        yield slots.ravel(), stack(batch)


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
