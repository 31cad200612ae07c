"""Batches as a pure function of the step: shuffled by index, noised by (seed, row), a share for each process."""

import collections
import concurrent.futures.process
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from bert_jax.core import worker_pool
from bert_jax.core.errors import UserError
from bert_jax.data.rows import HEADER

Batch = dict[str, Any]  # of arrays and numpy scalars
MakeExample = Callable[[np.ndarray, np.random.Generator], Batch]


class Batches:
    """`batches(step)` is the global batch of a step, or one process's share of it.

    There is no iterator state: the rows form an endless stream that is shuffled anew in each epoch (if the
    rows have `weights`, each part of them on its own, and the stream takes from them in this proportion),
    row i of the stream has noise of its own, from (seed, i), and batch `step` is the stream's rows
    from `step * batch_size` on. The global batch is the same for one process and for many.

    With `bins` the padding of short texts falls away: the rows of `WINDOW` batches are sorted by
    length, the batches formed anew and put into random order, each cut to the shortest of `bins`
    lengths that holds its rows, see `cuts`. This too depends on the step alone.

    Args:
      rows: random access to [4 + T] integers, or [..., 4 + T], several that belong together.
      make: turns a row and a generator into an example, a dict of arrays.
      batch_size: rows in the global batch.
      seed: of order and noise.
      bins: how many lengths there may be, if `rows` is one array; 1 is the full length alone.
      local: which rows of each batch are wanted, in order; None takes all.
    """

    WINDOW = 32

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        make: MakeExample,
        batch_size: int,
        seed: int,
        *,
        bins: int = 1,
        local: np.ndarray | None = None,
    ):
        if not len(rows):
            raise UserError('There are no rows to train on: prepare some text first.')
        self.batch_size = batch_size
        self._rows, self._make, self._seed = rows, make, seed
        self._local = np.arange(batch_size) if local is None else local
        self._order = _order(rows, seed)
        self._lengths, self._cuts = _lengths_and_cuts(rows, bins)

    def __call__(self, step: int) -> Batch:
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        width = None
        if self._cuts is not None:
            window, longest = self._window(step // self.WINDOW)
            places = window[step % self.WINDOW]
            width = _width(longest[step % self.WINDOW], self._cuts)
        return stack([self._example(int(place), width) for place in places[self._local]])

    def _example(self, place: int, width: int | None) -> Batch:
        row = self._rows[self._order[place]][..., :width]
        return self._make(row, np.random.default_rng((self._seed, place)))

    @functools.lru_cache(1)  # noqa: B019
    def _window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in the stream [WINDOW, batch size], like lengths together, and the longest of each batch."""
        places = np.arange(self.WINDOW * self.batch_size) + number * self.WINDOW * self.batch_size
        lengths = self._lengths[[self._order[int(p)] for p in places]]
        batches = np.argsort(lengths, kind='stable').reshape(self.WINDOW, -1)
        batches = np.random.default_rng((self._seed, number)).permutation(batches)
        return places[batches], lengths[batches].max(1)

    def iterate(self, start: int, stop: int, ahead: int = 4, workers: int = 0) -> Iterator[Batch]:
        """Batches of steps `start` to `stop`, made in advance: by a thread, `ahead` steps of them, or by `workers`, which are
        processes, `ahead` steps by each."""
        pool: concurrent.futures.Executor
        if workers:
            pool = worker_pool.pool(workers, _hold, self)
        else:
            pool = concurrent.futures.ThreadPoolExecutor(1, 'batches')
        make, ahead = (_make_held, ahead * workers) if workers else (self, ahead)
        pending: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
        try:
            for step in range(start, stop + ahead):
                if step < stop:
                    pending.append(pool.submit(make, step))
                if step >= start + ahead:
                    yield pending.popleft().result()
        except concurrent.futures.process.BrokenProcessPool as e:
            raise UserError(
                'A process that makes batches has ended (see above; for want of memory?): set fewer train.workers.'
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


_held: Batches


def _hold(batches: Batches) -> None:
    global _held
    _held = batches


def _make_held(step: int) -> Batch:
    return _held(step)


def _order(rows: Any, seed: int) -> Any:
    """Which row stands at each place of the endless stream."""
    parts = [len(rows)] if getattr(rows, 'weights', None) is None else rows.parts
    ends = np.cumsum(parts).tolist()
    streams = [
        grain.MapDataset.range(end - n, end).seed(seed).shuffle().repeat()
        for n, end in zip(parts, ends, strict=True)
        if n
    ]
    if len(streams) == 1:
        return streams[0]
    return grain.MapDataset.mix(streams, weights=[weight for weight in rows.weights if weight])


def stack(examples: Sequence[Batch]) -> Batch:
    """Examples with equal keys and shapes as one batch."""
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def once(
    rows: Sequence[np.ndarray],
    make: MakeExample,
    batch_size: int,
    seed: int = 0,
    *,
    limit: int = 0,
    bins: int = 1,
    local: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """All rows once, for evaluation; noise depends on (seed, row) alone.

    Args:
      rows, make, batch_size, seed, bins, local: as of `Batches`; with bins the shortest rows come first.
      limit: only the first so many rows; 0 takes all.

    Yields:
      Which rows they are in the whole batch, and the batch. The last is filled up with a row of weight 0:
      `row_weight` [B] float32 is 1 for a real row.
    """
    n = min(len(rows), limit or len(rows))
    lengths, to = _lengths_and_cuts(rows, bins)
    order = np.arange(n) if to is None else np.argsort(lengths[:n], kind='stable')
    for start in range(0, n, batch_size):
        indices = order[start : start + batch_size]
        width = None if to is None else _width(lengths[indices[-1]], to)
        wanted = np.arange(batch_size) if local is None else local
        real = wanted < len(indices)
        filled = indices[np.where(real, wanted, 0)]
        batch = stack([make(rows[i][..., :width], np.random.default_rng((seed, i))) for i in filled])
        yield indices, {**batch, 'row_weight': real.astype(np.float32)}


def cuts(lengths: np.ndarray, bins: int, unit: int = 1) -> np.ndarray:
    """The `bins` lengths, or fewer, that hold texts of these lengths with the least padding, in order.

    Found by dynamic programming over the lengths; all are multiples of `unit`.
    """
    values, counts = np.unique(-(-lengths // unit) * unit, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # least[j]: tokens, padding included, of the texts of the first j values; one more bin each time.
    least = np.array([0.0] + [np.inf] * len(values))
    choices = []
    for _ in range(min(bins, len(values))):
        totals = [least[:j] + (below[j] - below[:j]) * values[j - 1] for j in range(1, len(values) + 1)]
        choices.append([int(t.argmin()) for t in totals])
        least = np.array([np.inf, *(t.min() for t in totals)])
    found, j = [], len(values)
    for choice in reversed(choices):
        found.append(values[j - 1])
        j = choice[j - 1]
    return np.array(found[::-1])


def _lengths_and_cuts(rows: Any, bins: int) -> tuple[Any, Any]:
    """The length of each row and what to cut batches to; None for the full length."""
    if bins == 1 or not isinstance(rows, np.ndarray):
        return None, None
    lengths = rows[..., 0].reshape(len(rows), -1).max(1).astype(int)
    return lengths, cuts(lengths, bins, max(1, (rows.shape[-1] - HEADER) // 32))


def _width(longest: int, cuts: np.ndarray) -> int:
    """How much of a row to keep, with its header; never more than there is."""
    return HEADER + int(cuts[np.searchsorted(cuts, longest)])
