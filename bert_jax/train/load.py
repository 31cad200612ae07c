"""Load a trained model from a checkpoint."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bert_jax import tasks
from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import module
from bert_jax.train import checkpoint
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import Experiment


class TrainedModel(NamedTuple):
    """Contents of a checkpoint as objects.

    Attributes:
      experiment: config of the training run.
      tokenizer: tokenizer of the model.
      graph: structure of the model.
      params: parameters by path.
      step: number of updates.
    """

    experiment: Experiment
    tokenizer: Tokenizer
    graph: Any
    params: module.Params
    step: int

    @property
    def is_causal(self) -> bool:
        """Whether the model is a causal language model."""
        return self.experiment.task.name == 'clm'

    @property
    def predicts_next_tokens(self) -> bool:
        """Whether the model is a causal language model, or an encoder of the task `hybrid`."""
        return self.experiment.task.name in ('clm', 'hybrid')

    @property
    def mask_offset(self) -> int:
        """Number of positions between the output that predicts a masked token and the token; see `tasks.hybrid`."""
        return getattr(tasks.get(self.experiment.task.name).Task, 'mask_offset', 0)


def read(
    path: str | pathlib.Path, partitioner: Partitioner | None = None, overrides: Sequence[str] = ()
) -> TrainedModel:
    """Load the newest readable checkpoint at `path`.

    The parameters of each layer are apart, also if the run had `model.scan_layers`.

    Args:
      path: working directory, its `checkpoints` folder, or the folder of one step.
      partitioner: mesh on which to place the parameters; None places them on one device.
      overrides: `a.b=value` changes to the config of the checkpoint.

    Raises:
      UserError: if there is no checkpoint, it cannot be read, or `overrides` change what the model was trained for.
    """
    step, about = checkpoint.read_metadata(paths.make_path(path))
    experiment = experiment_lib.from_config(about['config'], overrides)
    if overrides:
        check_checkpoint_fields(
            path, experiment_lib.from_config(about['config']).task, experiment.task, overrides
        )
    tokenizer = tokenizer_lib.from_json(json.dumps(about['tokenizer']))
    experiment = experiment_lib.complete(experiment, tokenizer)
    experiment = dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, scan_layers=False)
    )
    task = experiment.make_task(tokenizer)
    graph, shapes, axes = module.abstract(lambda rngs: task.build_model(experiment.model, rngs))
    if partitioner is not None:
        shapes = {n: s.update(sharding=partitioner.sharding(axes[n], s.shape, n)) for n, s in shapes.items()}
    return TrainedModel(experiment, tokenizer, graph, checkpoint.read_params(step, shapes), about['step'])


def check_checkpoint_fields(
    path: str | pathlib.Path, trained: Any, task: Any, overrides: Iterable[str]
) -> None:
    """Raise UserError if `overrides`, or their keys, change a setting of a task that belongs to its trained model.

    Args:
      path: where the checkpoint is.
      trained: settings of the task with which the model was trained.
      task: settings of the task now.
      overrides: what was set, as `a.b` or `a.b=value`.
    """
    keys = {override.partition('=')[0] for override in overrides}
    for name in tasks.CHECKPOINT_FIELDS:
        before = getattr(trained, name, ())
        if f'task.{name}' in keys and before != () and getattr(task, name) != before:
            raise UserError(
                f'{str(path)!r} was trained with task.{name}={before!r}. Omit --config.task.{name}.'
            )


def read_part(path: str | pathlib.Path, part: str = '') -> TrainedModel:
    """Load one part of a model for replaced-token detection from `path`; any other model as `read` does.

    Args:
      path: as in `read`.
      part: 'discriminator', or 'generator', which becomes a masked language model; empty is the discriminator.

    Raises:
      UserError: if there is no checkpoint, or `part` is set for a model without parts.
    """
    trained = read(path)
    if trained.experiment.task.name == 'rtd':
        return _select_part(trained, part or 'discriminator')
    if part:
        raise UserError(
            f'{str(path)!r} has no {part}, because its task.name is {trained.experiment.task.name}. Pass the --workdir of '
            'a run with task.name=rtd.'
        )
    return trained


def _select_part(trained: TrainedModel, part: str) -> TrainedModel:
    model: Any = module.merge(trained.graph, trained.params)
    graph, params = module.split(model.part(part))
    experiment = trained.experiment
    if part == 'generator':
        task = experiment.task
        # It has no pooler; this setting makes it an ELECTRA when it is exported, also without projected embeddings.
        config = dataclasses.replace(task.generator(experiment.model), pooler_activation='gelu')
        experiment = dataclasses.replace(experiment, task=task.masked_lm, model=config)
    return trained._replace(experiment=experiment, graph=graph, params=params)


def read_causal(path: str | pathlib.Path) -> TrainedModel:
    """Load a causal language model from `path`, as `read` does.

    Raises:
      UserError: if there is no checkpoint, or its model is not a causal language model.
    """
    return _check_causal(read(path), path)


def read_next_token_model(path: str | pathlib.Path) -> TrainedModel:
    """Load a causal language model, or an encoder of the task `hybrid`, from `path`, as `read` does.

    Raises:
      UserError: if there is no checkpoint, or its model does not predict next tokens.
    """
    trained = read(path)
    return trained if trained.predicts_next_tokens else _check_causal(trained, path)


def read_masked(path: str | pathlib.Path) -> TrainedModel:
    """Load a masked language model from `path`, as `read` does; of replaced-token detection, the generator.

    Raises:
      UserError: if there is no checkpoint, or its model is not a masked language model.
    """
    return _check_masked(read(path), path)


def read_language_model(path: str | pathlib.Path) -> TrainedModel:
    """Load a causal or a masked language model from `path`, as `read` does.

    Raises:
      UserError: if there is no checkpoint, or its model is neither.
    """
    trained = read(path)
    return trained if trained.is_causal else _check_masked(trained, path)


def _check_causal(trained: TrainedModel, path: str | pathlib.Path) -> TrainedModel:
    """Return `trained`; raise UserError if it is not a causal language model."""
    if not trained.is_causal:
        raise UserError(
            f'{str(path)!r} is not a causal language model. Set --checkpoint to the --workdir of a run with '
            'task.name=clm.'
        )
    return trained


def _check_masked(trained: TrainedModel, path: str | pathlib.Path) -> TrainedModel:
    """Return `trained`, or its generator; raise UserError if it is not a masked language model."""
    if trained.experiment.task.name == 'rtd':
        return _select_part(trained, 'generator')
    if not hasattr(module.merge(trained.graph, trained.params), 'masked_lm'):
        raise UserError(
            f'{str(path)!r} is not a masked language model. Set --checkpoint to the --workdir of a pretraining run.'
        )
    return trained
