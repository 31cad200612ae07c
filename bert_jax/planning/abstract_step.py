"""The train step of a pretraining config, made without data and for devices that may be elsewhere."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from bert_jax import optim
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import SPECIAL, Tokenizer
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import state as state_lib
from bert_jax.train.experiment import Experiment
from bert_jax.train.loop import Phase, check_shape
from bert_jax.train.step import jit_train_step


@dataclasses.dataclass(frozen=True)
class Step:
    """The step that training jits, and what it is given.

    Attributes:
      jitted: of (state, batch).
      layout: of its state.
      batch: shapes of the global batch.
      flops: of the model in forward and backward pass, if all rows are full.
      tokens: of the global batch.
    """

    jitted: Any
    layout: state_lib.Layout
    batch: dict[str, jax.ShapeDtypeStruct]
    flops: float
    tokens: int

    def lower(self) -> Any:
        """Traced, to be compiled."""
        return self.jitted.func.lower(*self.jitted.args, self.layout.abstract, self.batch)

    @property
    def bytes(self) -> tuple[int, int]:
        """Of the parameters and of the optimizer's state on each device."""

        def size(shapes: Any, shardings: Any) -> int:
            both = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
            return sum(math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in both)

        shapes, shardings = self.layout.shapes, self.layout.shardings
        return size(shapes.params, shardings.params), size(shapes.opt_state, shardings.opt_state)


def stand_in(experiment: Experiment) -> tuple[Experiment, Tokenizer]:
    """The experiment, complete, with a tokenizer that has as many entries as the one that would be trained.

    Raises:
      UserError: for a downstream task, whose rows need its data and a checkpoint.
    """
    if not isinstance(experiment.data, TextConfig):
        raise UserError(
            f'{experiment.task.name} is no pretraining: plan that of its model, with data.length and train.batch_size of '
            'the fine-tuning.'
        )
    if experiment.tokenizer.path:
        tokenizer = tokenizer_lib.load(experiment.tokenizer.path)
    else:
        more = experiment.tokenizer.vocab_size - len(SPECIAL)
        tokenizer = tokenizer_lib.from_vocab([*SPECIAL, *(f'w{i}' for i in range(more))])
    return experiment_lib.complete(experiment, tokenizer), tokenizer


def make(experiment: Experiment, tokenizer: Tokenizer, phase: Phase, partitioner: Partitioner) -> Step:
    """The step for the batch of a phase.

    Args:
      experiment, tokenizer: as of `stand_in`.
      phase: row length and global batch size.
      partitioner: of devices that may be elsewhere.

    Raises:
      UserError: if it could not be trained on.
    """
    check_shape(experiment, partitioner, phase.length, phase.batch_size)
    model, task = experiment.model, experiment.make_task(tokenizer)
    tx = optim.make(experiment.optim, phase.stop)
    layout = state_lib.layout(functools.partial(task.module, model), tx, partitioner)
    jitted = jit_train_step(
        task,
        layout,
        partitioner,
        tx,
        schedule=optim.schedule(experiment.optim, phase.stop),
        seed=0,
        dropout=model.dropout > 0 or model.attention_dropout > 0,
        accumulate=experiment.train.accumulate,
    )
    example = _example(task, tokenizer, phase.length)
    batch = {
        k: jax.ShapeDtypeStruct((phase.batch_size, *v.shape[1:]), v.dtype, sharding=partitioner.batch)
        for k, v in example.items()
    }
    flops = 3 * phase.batch_size * task.flops(model, example)
    return Step(jitted, layout, batch, flops, phase.batch_size * phase.length)


def _example(task: Any, tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
    """A batch of one full row, of made-up text."""
    rng = np.random.default_rng(0)
    sentence = functools.partial(rng.choice, tokenizer.ordinary, length // 4)
    documents = [[np.asarray(sentence(), np.int32) for _ in range(16)] for _ in range(8)]
    rows = list(task.row_maker(length)(documents, tokenizer, rng))
    return stack([task.example(max(rows, key=lambda row: row[0]), rng)])
