"""Build the train step of a pretraining config without data, for devices that may be absent."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import flops
from bert_jax.train import state as state_lib
from bert_jax.train.checks import check_batch_shape
from bert_jax.train.experiment import Experiment
from bert_jax.train.loop import Phase
from bert_jax.train.step import make_train_step


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """The jitted train step with the shapes and shardings of its arguments.

    Attributes:
      jitted: function of (state, batch).
      layout: shapes and shardings of the state.
      batch: shapes of the global batch.
      flops: FLOP of the model in the forward and backward pass, if all rows are full, see `flops.training_ratio`.
    """

    jitted: Any
    layout: state_lib.Layout
    batch: dict[str, jax.ShapeDtypeStruct]
    flops: float

    def lower(self, platform: str | None = None) -> Any:
        """Lower the step for compilation.

        Args:
          platform: platform of the program, such as 'tpu', for devices that are abstract; None means that of the
            devices.
        """
        traced = self.jitted.func.trace(*self.jitted.args, self.layout.abstract, self.batch)
        return traced.lower(lowering_platforms=platform and (platform,))

    @property
    def state_bytes(self) -> tuple[int, int]:
        """Bytes of the parameters and of the optimizer state on each device."""
        state = self.layout.abstract
        return _bytes_per_device(state.params), _bytes_per_device(state.opt_state)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients on each device."""
        return _bytes_per_device(self.layout.select_trained(self.layout.abstract.params))


def _bytes_per_device(tree: Any) -> int:
    arrays = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays)


def complete_experiment(experiment: Experiment) -> tuple[Experiment, Tokenizer]:
    """Complete a pretraining config without training a tokenizer.

    Returns:
      The completed config, and the tokenizer of `tokenizer.path`, or without a path one with made-up words and the
      configured vocabulary size.

    Raises:
      UserError: for a downstream task, whose rows depend on its data and on a checkpoint.
    """
    if not isinstance(experiment.data, TextConfig):
        raise UserError(
            f'The task {experiment.task.name} is not a pretraining task, and only pretraining can be planned. Plan the pretraining '
            'config of the model with the data.length and train.batch_size of the fine-tuning config.'
        )
    path = experiment.tokenizer.path
    tokenizer = tokenizer_lib.load(path) if path else tokenizer_training.placeholder(experiment.tokenizer)
    return experiment_lib.complete(experiment, tokenizer), tokenizer


def make_step(
    experiment: Experiment, tokenizer: Tokenizer, phase: Phase, partitioner: Partitioner
) -> AbstractStep:
    """Build the train step of a phase.

    Args:
      experiment: config from `complete_experiment`.
      tokenizer: tokenizer from `complete_experiment`.
      phase: row length and global batch size.
      partitioner: mesh of the devices; the devices themselves may be absent.

    Raises:
      UserError: if the batch does not divide over the mesh, or a row is longer than the model allows.
    """
    check_batch_shape(experiment, partitioner, phase.length, phase.batch_size)
    model, task = experiment.model, experiment.make_task(tokenizer)
    train = experiment.train
    settings: Any = {'accumulation_steps': train.accumulation_steps, 'prng': train.prng}
    layout, jitted = make_train_step(task, model, experiment.optim, phase.stop, partitioner, **settings)
    example = _make_example(task, tokenizer, phase.length)
    batch = {
        k: jax.ShapeDtypeStruct((phase.batch_size, *v.shape[1:]), v.dtype, sharding=partitioner.batch)
        for k, v in example.items()
    }
    ratio = flops.training_ratio(task, model, layout, example)
    return AbstractStep(jitted, layout, batch, ratio * phase.batch_size * task.flops(model, example))


def _make_example(task: Any, tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
    """Make a batch of one full row from random text."""
    rng = np.random.default_rng(0)
    sentence = functools.partial(rng.choice, tokenizer.ordinary_ids, length // 4)
    documents = [[np.asarray(sentence(), np.int32) for _ in range(16)] for _ in range(8)]
    rows = list(task.row_maker(length)(documents, tokenizer, rng))
    return stack([task.example(max(rows, key=lambda row: row[0]), rng)])
