"""Check settings of several sections together, before a run reads data or compiles."""

import functools
from collections.abc import Mapping
from typing import Any

from bert_jax import optim
from bert_jax.core import metric_writers
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import module
from bert_jax.train.experiment import Experiment
from bert_jax.train.phases import duration_units, make_phases, optim_config, phase_task


def check_experiment(experiment: Experiment, tokenizer: Tokenizer, partitioner: Partitioner) -> None:
    """Raise UserError for settings that cannot work: of the task, of the model on this mesh, and of durations.

    Args:
      experiment: complete config.
      tokenizer: its tokenizer, or a placeholder.
      partitioner: mesh of the run.
    """
    metric_writers.check_installed(experiment.train.writers)
    task = check_task(experiment, tokenizer)
    partitioner.check_batch(experiment.train.eval_batch_size, 'train.eval_batch_size')
    for phase in experiment.phases:
        check_batch_shape(experiment.in_phase(phase.settings), partitioner, phase.length, phase.batch_size)
    _, shapes, axes = module.abstract(lambda rngs: task.build_model(experiment.model, rngs))
    for name, shape in shapes.items():
        partitioner.sharding(axes[name], shape.shape, name)
    optimizer = optim_config(experiment, task)
    optim.trained_paths(optimizer, shapes)
    durations = [optimizer.warmup, optimizer.decay, *(phase.duration for phase in experiment.phases)]
    if not any('epoch' in str(duration) for duration in durations):  # their steps depend on the data
        phases = make_phases(experiment, examples=0)
        optim.make_schedule(optimizer, phases[-1].stop, **duration_units(phases, examples=0))
    _check_phases(experiment, task, shapes)


def check_task(experiment: Experiment, tokenizer: Tokenizer) -> Any:
    """Make the task of an experiment and return it.

    Raises:
      UserError: if the task cannot have these settings, or rows of these lengths.
    """
    task = experiment.make_task(tokenizer)
    if isinstance(experiment.data, TextConfig):
        for phase in experiment.phases:
            task.row_maker(phase.length)
    return task


def _check_phases(experiment: Experiment, task: Any, shapes: Mapping[str, Any]) -> None:
    """Raise UserError if the settings of a phase change the prepared rows or the parameters of the model.

    Args:
      experiment: complete config.
      task: its task without the settings of a phase.
      shapes: shapes of its parameters.
    """
    for phase in experiment.phases:
        if not phase.settings:
            continue
        other, model = phase_task(experiment, task, phase.settings), experiment.in_phase(phase.settings).model
        if other.row_maker(phase.length) != task.row_maker(phase.length):
            what = 'the prepared rows'
        elif module.abstract(functools.partial(other.build_model, model))[1] != shapes:
            what = 'the parameters of the model'
        else:
            continue
        raise UserError(
            f'A phase of train.phases changes {what} with its settings {", ".join(phase.settings)}. Set them for the '
            'whole run instead.'
        )


def check_batch_shape(experiment: Experiment, partitioner: Partitioner, length: int, batch_size: int) -> None:
    """Raise UserError if the model and the mesh do not support batches of this shape."""
    parts, shards = experiment.train.accumulation_steps, partitioner.num_batch_shards
    partitioner.check_batch(batch_size)
    if batch_size % (parts * shards):
        raise UserError(
            f'train.batch_size={batch_size} is not divisible by train.accumulation_steps={parts} times {shards} '
            'data-parallel devices. Set it to a multiple of their product.'
        )
    experiment.check_length(length)
