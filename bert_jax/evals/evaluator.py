"""Score model parameters on fixed rows, during training and in the evaluation commands."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import metrics, partitioning
from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import pipeline
from bert_jax.modeling import module
from bert_jax.tasks import Examples
from bert_jax.train import packing as packing_lib
from bert_jax.train.experiment import TrainConfig

_SCORED_ZEROS = 256  # number of rows of which zeros are scored to learn the names of the scores


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
      mixture: share of each named corpus in the training rows. The losses of the corpora, weighted by these shares,
        are reported as LOSS/training_mixture.

    Attributes:
      num_rows: number of evaluated rows.
      batches: function that returns an iterator over row indices, -1 in slots without a row, and batches.
    """

    def __init__(
        self,
        task: Any,
        graph: module.Graph,
        examples: Examples,
        partitioner: Partitioner,
        config: TrainConfig,
        generate: bool = False,
        mixture: Mapping[str, float] | None = None,
    ):
        partitioner.check_batch(config.eval_batch_size, 'train.eval_batch_size')
        self._task = task = task.for_evaluation()
        self._partitioner = partitioner
        rows, self._metadata = examples
        self._mixture = mixture or {}
        self.num_rows = min(len(rows), config.eval_rows or len(rows))
        generate &= hasattr(task, 'generate')  # which reads one text a row
        self._is_packed = packing_lib.is_on(config, task, partitioner) and not generate
        self.batches = self._make_batches(rows, config)

        def step(params: Mapping[str, jax.Array], batch: dict[str, jax.Array]) -> Any:
            with partitioning.use(partitioner):
                model = module.merge(graph, params)
                result = task.loss(model, batch, None)
                generated = task.generate(model, batch) if generate else {}
            return result.losses, result.metrics, result.outputs | generated

        self._step = jax.jit(step, out_shardings=partitioner.replicated)

    def _make_batches(self, rows: Any, config: TrainConfig) -> Any:
        task, size, local_rows = self._task, config.eval_batch_size, self._partitioner.local_rows
        if not self._is_packed:
            return functools.partial(
                pipeline.evaluation_batches,
                rows,
                task.example,
                size,
                config.seed,
                limit=self.num_rows,
                length_buckets=config.length_buckets,
                local_rows=local_rows(size),
            )
        multiple = self._partitioner.num_batch_shards
        num_batches = -(-self.num_rows // size)
        # Batches as small as their number allows, so that the last one is as full as the others.
        size = -(-self.num_rows // (num_batches * multiple)) * multiple
        packing = packing_lib.make(task, rows, size, multiple, config)
        return functools.partial(
            pipeline.packed_evaluation_batches,
            rows,
            task.example,
            config.seed,
            packing,
            limit=self.num_rows,
            local_rows=local_rows(packing.num_rows),
        )

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
            is_real = batch_indices >= 0
            outputs.append({k: self._by_text(v)[: len(is_real)][is_real] for k, v in output.items()})
            indices.append(batch_indices[is_real])
        combined = metrics.combine(losses)
        loss = sum(combined.values())
        order = np.argsort(np.concatenate(indices))
        joined = {k: _concatenate([o[k] for o in outputs])[order] for k in outputs[0]}
        combined |= metrics.combine(means)
        return {'loss': loss, **combined, **mix_losses(combined, self._mixture)}, joined

    def _by_text(self, output: Any) -> np.ndarray:
        """Return the outputs of a batch by text, [n, ...]."""
        array = np.asarray(output)
        return array.reshape(-1, *array.shape[2:]) if self._is_packed else array

    def __call__(self, params: Mapping[str, jax.Array]) -> dict[str, Any]:
        """Return the means of the losses and metrics, and the scores that the task computes from all outputs."""
        means, outputs = self.collect_outputs(params)
        return {**means, **self._task.scores(outputs, self._metadata)}

    def check_score(self, name: str, params: Mapping[str, Any]) -> None:
        """Raise UserError if evaluations give no score of this name, without running the model.

        Args:
          name: name of a score, such as `checkpoint.best_metric`.
          params: parameters or their shapes.
        """
        _, batch = next(self.batches() if self._is_packed else self.batches(length_buckets=1))
        losses, means, outputs = jax.eval_shape(self._step, params, self._partitioner.global_batch(batch))
        known = {'loss', *losses, *means, *mix_losses(dict.fromkeys(means, 0.0), self._mixture)}
        if name not in known:
            num_rows = min(self.num_rows, _SCORED_ZEROS)
            shapes = {k: v.shape[2 if self._is_packed else 1 :] for k, v in outputs.items()}
            zeros = {k: np.zeros((num_rows, *shapes[k]), v.dtype) for k, v in outputs.items()}
            scores = self._task.scores(zeros, self._metadata)
            known |= {score for score, value in scores.items() if isinstance(value, float)}
        if name not in known:
            raise UserError(f'checkpoint.best_metric={name!r} is not a score: {did_you_mean(name, known)}')

    def predictions(self, params: Mapping[str, jax.Array]) -> list[dict[str, Any]]:
        """Return the task's prediction for each record."""
        return self._task.predictions(self.collect_outputs(params)[1], self._metadata)


def mix_losses(means: Mapping[str, float], mixture: Mapping[str, float]) -> dict[str, float]:
    """Average the losses LOSS/CORPUS of the corpora, weighted by the shares in `mixture`, as LOSS/training_mixture."""
    names = dict.fromkeys(name.partition('/')[0] for name in means if '/' in name)
    complete = [name for name in names if mixture and all(f'{name}/{corpus}' in means for corpus in mixture)]
    return {
        f'{name}/training_mixture': sum(
            share * means[f'{name}/{corpus}'] for corpus, share in mixture.items()
        )
        for name in complete
    }


def _concatenate(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Pad all axes but the first with zeros to equal sizes, and concatenate the arrays along the first."""
    shape = np.max([a.shape[1:] for a in arrays], axis=0).astype(int)
    padded = [
        np.pad(a, [(0, 0), *((0, n - m) for n, m in zip(shape, a.shape[1:], strict=True))]) for a in arrays
    ]
    return np.concatenate(padded)
