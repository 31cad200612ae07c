"""Batches as a pure function of the step: shuffled by index, noised by (seed, row), sliced by host."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from bert_jax.core.errors import UserError

Batch = dict[str, Any]  # of arrays and numpy scalars
MakeExample = Callable[[np.ndarray, np.random.Generator], Batch]


class Batches:
    """`batches(step)` is this host's share of the global batch of a step.

    There is no iterator state: batch `step` is rows `step * batch_size ...` of an endless stream
    that is shuffled anew in each epoch, and row i of the stream has noise of its own, from (seed, i).
    The global batch is the same on one host and on many.

    Args:
      rows: random access to [3 + T] integers.
      make: turns a row and a generator into an example, a dict of arrays of fixed shape.
      batch_size: rows in the global batch.
      seed: of order and noise.
      host, hosts: which part of each batch is this host's.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        make: MakeExample,
        batch_size: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
    ):
        if not len(rows):
            raise UserError('There are no rows to train on: prepare some text first.')
        if batch_size % hosts:
            raise UserError(f'The global batch of {batch_size} does not divide by {hosts} hosts.')
        self.batch_size = batch_size
        self._local = range(batch_size // hosts * host, batch_size // hosts * (host + 1))
        self._stream = grain.MapDataset.source(rows).seed(seed).shuffle().repeat().random_map(make)

    def __call__(self, step: int) -> Batch:
        return stack([self._stream[step * self.batch_size + i] for i in self._local])

    def iterate(self, start: int, stop: int, ahead: int = 4) -> Iterator[Batch]:
        """Batches of steps `start` to `stop`, made by a thread up to `ahead` steps in advance."""
        with concurrent.futures.ThreadPoolExecutor(1, 'batches') as pool:
            pending: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
            for step in range(start, stop + ahead):
                if step < stop:
                    pending.append(pool.submit(self, step))
                if step >= start + ahead:
                    yield pending.popleft().result()


def stack(examples: Sequence[Batch]) -> Batch:
    """Examples with equal keys and shapes as one batch."""
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def in_order(
    rows: Sequence[np.ndarray], make: MakeExample, batch_size: int, seed: int = 0, limit: int | None = None
) -> Iterator[Batch]:
    """All rows once, for evaluation: the last batch is filled up with rows of weight 0.

    Adds `row_weight` [B] float32, which is 1 for a real row. Noise depends on (seed, row) alone.
    """
    n = len(rows) if limit is None else min(limit, len(rows))
    for start in range(0, n, batch_size):
        indices = range(start, min(start + batch_size, n))
        batch = stack([make(rows[i], np.random.default_rng((seed, i))) for i in indices])
        missing = batch_size - len(indices)
        batch = {k: np.concatenate([v, np.repeat(v[:1], missing, 0)]) for k, v in batch.items()}
        batch['row_weight'] = (np.arange(batch_size) < len(indices)).astype(np.float32)
        yield batch
