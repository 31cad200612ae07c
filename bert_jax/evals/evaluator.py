"""One evaluator for training and for the eval binaries: parameters in, scores out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import metrics, partitioning
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import pipeline
from bert_jax.modeling import module
from bert_jax.tasks import Examples


class Evaluator:
    """Scores parameters on fixed rows.

    Args:
      task: what the rows mean.
      graph: structure of the model.
      examples: rows, and what the task knows about them.
      batch_size: rows at a time; the last batch is filled up with rows that count nothing.
      partitioner: where it runs.
      seed: of noise, so that masked positions are the same each time.
      limit: only the first so many rows; 0 takes all.
      bins: see `pipeline.Batches`.
      write: whether a task that writes does so, for its scores and predictions; it takes long.
    """

    def __init__(
        self,
        task: Any,
        graph: module.Graph,
        examples: Examples,
        batch_size: int,
        partitioner: Partitioner,
        seed: int = 0,
        limit: int = 0,
        bins: int = 1,
        write: bool = False,
    ):
        partitioner.check_batch(batch_size, 'train.eval_batch_size')
        self._task, self._partitioner = task, partitioner
        rows, self._about = examples
        self.rows = min(len(rows), limit or len(rows))
        local = partitioner.local_rows(batch_size)
        self.batches = lambda: pipeline.once(
            rows, task.example, batch_size, seed, limit=self.rows, bins=bins, local=local
        )

        def step(params: Mapping[str, jax.Array], batch: dict[str, jax.Array]) -> Any:
            with partitioning.use(partitioner):
                model = module.merge(graph, params)
                result = task.loss(model, batch, None)
                more = task.written(model, batch) if write and hasattr(task, 'written') else {}
            return result.terms, result.metrics, result.outputs | more

        self._step = jax.jit(step, out_shardings=partitioner.replicated)

    def outputs(self, params: Mapping[str, jax.Array]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Means over all rows, `loss` first, and the task's outputs of each row in their order."""
        terms, means, outputs, found = [], [], [], []
        for indices, batch in self.batches():
            term, mean, output = self._step(params, self._partitioner.global_batch(batch))
            terms.append(term)
            means.append(mean)
            outputs.append({k: np.asarray(v)[: len(indices)] for k, v in output.items()})
            found.append(indices)
        losses = metrics.combine(terms)
        order = np.argsort(np.concatenate(found))
        joined = {k: _join([o[k] for o in outputs])[order] for k in outputs[0]}
        return {'loss': sum(losses.values()), **losses, **metrics.combine(means)}, joined

    def __call__(self, params: Mapping[str, jax.Array]) -> dict[str, Any]:
        """Scores: the means, and what the task computes from all outputs together."""
        means, outputs = self.outputs(params)
        return {**means, **self._task.scores(outputs, self._about)}

    def predictions(self, params: Mapping[str, jax.Array]) -> list[dict[str, Any]]:
        """What the task says of each record."""
        return self._task.predictions(self.outputs(params)[1], self._about)


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays one after the other; those of shorter rows are filled up with zeros."""
    shape = np.max([a.shape[1:] for a in arrays], axis=0).astype(int)
    widened = [
        np.pad(a, [(0, 0), *((0, n - m) for n, m in zip(shape, a.shape[1:], strict=True))]) for a in arrays
    ]
    return np.concatenate(widened)
