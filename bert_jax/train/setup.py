"""Set up a run in its working directory: check its settings, then make or find its tokenizer, rows and record."""

import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bert_jax.core import distributed
from bert_jax.core.partitioning import Partitioner
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.train import checks, convert, inputs, packing, record, resume
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import Experiment


class Setup(NamedTuple):
    """What a run trains with.

    Attributes:
      experiment: complete config.
      tokenizer: tokenizer of the model.
      task: task to train.
      rows: training and validation rows.
      read_params: reads pretrained parameters; None for random initialization.
      earlier_record: record of the run that is resumed; empty for a new run.
      record: record of the run, without its starts.
    """

    experiment: Experiment
    tokenizer: Tokenizer
    task: Any
    rows: inputs.TaskRows
    read_params: inputs.ReadParams | None
    earlier_record: Mapping[str, Any]
    record: Mapping[str, Any]


def check_before_tokenizer(workdir: pathlib.Path, experiment: Experiment, partitioner: Partitioner) -> None:
    """Raise UserError for settings that cannot work, before a tokenizer is trained for them."""
    if not experiment.trains_tokenizer:
        return
    # The tokenizer completes the sections `model` and `task`.
    sections = {k: v for k, v in experiment.as_dict().items() if k not in ('model', 'task')}
    resume.check_config(workdir, resume.read_saved_config(workdir), sections)
    checks.check_experiment(*experiment_lib.preview(experiment), partitioner)


def set_up(
    spec: str,
    workdir: pathlib.Path,
    overrides: Sequence[str],
    experiment: Experiment,
    partitioner: Partitioner,
) -> Setup:
    """Make or find the inputs of a run, and write its config. The lead process of a job must call this first.

    Args:
      spec: config file of the run, with its argument.
      workdir: its working directory, which `check_before_tokenizer` has accepted.
      overrides: its `a.b=value` overrides.
      experiment: the config that they define.
      partitioner: mesh of the run.

    Raises:
      UserError: if the run cannot start or resume with this config.
    """
    with inputs.local_rows(experiment, workdir):
        return _set_up(spec, workdir, overrides, experiment, partitioner)


def _set_up(
    spec: str,
    workdir: pathlib.Path,
    overrides: Sequence[str],
    experiment: Experiment,
    partitioner: Partitioner,
) -> Setup:
    saved = resume.read_saved_config(workdir)
    earlier: dict[str, Any] = {}
    if saved is not None:
        earlier = record.read(workdir)
        record.check_files(workdir, saved, earlier, experiment)
    is_checked = experiment.trains_tokenizer
    experiment, tokenizer, read_params = inputs.resolve(experiment, workdir)
    task = experiment.make_task(tokenizer)
    experiment = packing.resolve(experiment, task, partitioner)
    if not is_checked:
        checks.check_experiment(experiment, tokenizer, partitioner)
    resume.check_config(workdir, saved, experiment.as_dict())
    if saved is None and distributed.is_lead():
        resume.write_config(workdir, experiment)
        if not experiment.init.checkpoint:
            convert.log_export_limits(experiment, tokenizer)
    rows = inputs.TaskRows(task, experiment, tokenizer, workdir)
    rows.prepare_all()
    made_from = record.describe(experiment, tokenizer, rows.folder(rows.lengths[-1]))
    if saved is not None:
        record.check(workdir, earlier, made_from)
        make_command = functools.partial(resume.command_from_checkpoint, spec, workdir, overrides, experiment)
        length = experiment.phases[0].length
        experiment = resume.train_longer(
            workdir, saved, experiment, lambda: len(rows.train(length)), make_command
        )
        if distributed.is_lead():
            resume.write_config(workdir, experiment)
    if labels := getattr(experiment.task, 'labels', ()):
        names = ', '.join(labels[:20]) + (' ...' if len(labels) > 20 else '')
        logging.info('%d classes: %s', len(labels), names)
    return Setup(experiment, tokenizer, task, rows, read_params, earlier, made_from)
