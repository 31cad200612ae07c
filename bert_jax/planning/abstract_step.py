"""Build the train step of a config for devices that may be absent; that of pretraining without data."""

import dataclasses
import functools
import logging
import math
import pathlib
from typing import Any

import jax
import numpy as np

from bert_jax.core.partitioning import Partitioner
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.data.pipeline import Batches, stack
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import flops, inputs
from bert_jax.train import packing as packing_lib
from bert_jax.train import state as state_lib
from bert_jax.train.checks import check_batch_shape
from bert_jax.train.experiment import Experiment
from bert_jax.train.phases import Phase, duration_units, make_phases, optim_config
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
    """Complete a config without training a tokenizer.

    Returns:
      The completed config, and the tokenizer of `tokenizer.path` or `init.checkpoint`; for pretraining without a path,
      one with made-up words and the configured vocabulary size.

    Raises:
      UserError: for a downstream task without a tokenizer or data.
    """
    if not isinstance(experiment.data, TextConfig):
        if experiment.train.packing == 'auto':  # as on all accelerators
            experiment = dataclasses.replace(
                experiment, train=dataclasses.replace(experiment.train, packing='on')
            )
        experiment, tokenizer, _ = inputs.resolve(experiment, pathlib.Path())
        return experiment, tokenizer
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
    experiment = experiment.in_phase(phase.settings)
    check_batch_shape(experiment, partitioner, phase.length, phase.batch_size)
    model, task = experiment.model, experiment.make_task(tokenizer)
    rows = None if isinstance(experiment.data, TextConfig) else task.train_rows()
    examples = 0 if rows is None else len(rows)
    train, phases = experiment.train, make_phases(experiment, examples)
    settings: Any = {
        'accumulation_steps': train.accumulation_steps,
        'prng': train.prng,
        **duration_units(phases, examples),
    }
    optimizer, total = optim_config(experiment, task), phases[-1].stop
    layout, jitted = make_train_step(task, model, optimizer, total, partitioner, **settings)
    part, copies = _make_part(task, tokenizer, experiment, phase, partitioner, rows)
    batch = {
        k: jax.ShapeDtypeStruct((copies * len(v), *v.shape[1:]), v.dtype, sharding=partitioner.batch)
        for k, v in part.items()
    }
    ratio = flops.training_ratio(task, model, layout, part)
    return AbstractStep(jitted, layout, batch, ratio * copies * task.flops(model, part))


def _make_part(
    task: Any, tokenizer: Tokenizer, experiment: Experiment, phase: Phase, partitioner: Partitioner, rows: Any
) -> tuple[dict[str, np.ndarray], int]:
    """Make a part of the batches of a phase, and count how often a batch holds it.

    It is the first batch if texts are packed, otherwise one row: that of the longest text, or of random text.
    """
    if rows is None:
        return _make_example(task, tokenizer, phase.length), phase.batch_size
    config = experiment.train
    if not packing_lib.is_on(config, task, partitioner):
        longest = rows[task.text_lengths(rows).reshape(len(rows), -1).sum(1).argmax()]
        return stack([task.example(longest, np.random.default_rng(0))]), phase.batch_size
    row_multiple = partitioner.num_batch_shards * config.accumulation_steps
    packing = packing_lib.make(task, rows, phase.batch_size, row_multiple, config)
    logging.info('packing %s', packing.describe())
    return Batches(rows, task.example, phase.batch_size, config.seed, packing=packing)(0), 1


def _make_example(task: Any, tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
    """Make a batch of one full row from random text."""
    rng = np.random.default_rng(0)
    sentence = functools.partial(rng.choice, tokenizer.ordinary_ids, length // 4)
    documents = [[np.asarray(sentence(), np.int32) for _ in range(16)] for _ in range(8)]
    rows = list(task.row_maker(length)(documents, tokenizer, rng))
    return stack([task.example(max(rows, key=lambda row: row[0]), rng)])
