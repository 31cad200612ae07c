"""Score model parameters on fixed rows, during training and in the evaluation commands."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import metrics, partitioning
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import pipeline
from bert_jax.modeling import module
from bert_jax.tasks import Examples
from bert_jax.train.experiment import TrainConfig


class Evaluator:
    """Score parameters on fixed rows.

    Args:
      task: task that interprets the rows.
      graph: structure of the model.
      examples: rows of the task, with their metadata.
      partitioner: mesh and shardings of the computation.
      config: batch size, number of rows, length buckets and seed. The seed fixes random choices, so that every
        evaluation masks the same positions. The last batch is padded with rows of weight 0.
      generate: whether to call the task's `generate`, if it has one. It is slow, but the scores and predictions of
        such a task need its output.

    Attributes:
      num_rows: number of evaluated rows.
      batches: function that returns an iterator over row indices and batches.
    """

    def __init__(
        self,
        task: Any,
        graph: module.Graph,
        examples: Examples,
        partitioner: Partitioner,
        config: TrainConfig,
        generate: bool = False,
    ):
        partitioner.check_batch(config.eval_batch_size, 'train.eval_batch_size')
        self._task, self._partitioner = task, partitioner
        rows, self._metadata = examples
        self.num_rows = min(len(rows), config.eval_rows or len(rows))
        self.batches = functools.partial(
            pipeline.evaluation_batches,
            rows,
            task.example,
            config.eval_batch_size,
            config.seed,
            limit=self.num_rows,
            length_buckets=config.length_buckets,
            local_rows=partitioner.local_rows(config.eval_batch_size),
        )

        def step(params: Mapping[str, jax.Array], batch: dict[str, jax.Array]) -> Any:
            with partitioning.use(partitioner):
                model = module.merge(graph, params)
                result = task.loss(model, batch, None)
                generated = task.generate(model, batch) if generate and hasattr(task, 'generate') else {}
            return result.losses, result.metrics, result.outputs | generated

        self._step = jax.jit(step, out_shardings=partitioner.replicated)

    def collect_outputs(
        self, params: Mapping[str, jax.Array]
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Run the model on all rows.

        Returns:
          The means of the losses and metrics, where `loss` is the sum of the losses, and the task's outputs by row.
        """
        losses, means, outputs, indices = [], [], [], []
        for batch_indices, batch in self.batches():
            loss, mean, output = self._step(params, self._partitioner.global_batch(batch))
            losses.append(loss)
            means.append(mean)
            outputs.append({k: np.asarray(v)[: len(batch_indices)] for k, v in output.items()})
            indices.append(batch_indices)
        combined = metrics.combine(losses)
        order = np.argsort(np.concatenate(indices))
        joined = {k: _concatenate([o[k] for o in outputs])[order] for k in outputs[0]}
        return {'loss': sum(combined.values()), **combined, **metrics.combine(means)}, joined

    def __call__(self, params: Mapping[str, jax.Array]) -> dict[str, Any]:
        """Return the means of the losses and metrics, and the scores that the task computes from all outputs."""
        means, outputs = self.collect_outputs(params)
        return {**means, **self._task.scores(outputs, self._metadata)}

    def predictions(self, params: Mapping[str, jax.Array]) -> list[dict[str, Any]]:
        """Return the task's prediction for each record."""
        return self._task.predictions(self.collect_outputs(params)[1], self._metadata)


def _concatenate(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Pad all axes but the first with zeros to equal sizes, and concatenate the arrays along the first."""
    shape = np.max([a.shape[1:] for a in arrays], axis=0).astype(int)
    padded = [
        np.pad(a, [(0, 0), *((0, n - m) for n, m in zip(shape, a.shape[1:], strict=True))]) for a in arrays
    ]
    return np.concatenate(padded)
