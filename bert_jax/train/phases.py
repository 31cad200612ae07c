"""Phases of a run: their steps, and the config, task and train step of each."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from bert_jax.core.cadence import duration_to_steps
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.optim import OptimConfig
from bert_jax.train import state as state_lib
from bert_jax.train.experiment import Experiment
from bert_jax.train.step import make_train_step

_MAX_STEPS = 2**31 - 1  # a step is an int32

Evaluate = Callable[[Mapping[str, jax.Array]], dict[str, Any]]
MakeEvaluator = Callable[[Experiment, Any, state_lib.Layout], Evaluate | None]


@dataclasses.dataclass(frozen=True)
class Phase:
    """Part of a run, from step `start` to step `stop`, with one row length, batch size and group of settings.

    Attributes:
      start: step at which the phase starts.
      stop: step at which it ends.
      length: number of tokens in a row.
      batch_size: number of rows in the global batch.
      settings: `section.key=value` settings that apply in this phase only.
    """

    start: int
    stop: int
    length: int
    batch_size: int
    settings: tuple[str, ...] = ()

    def describe(self) -> str:
        """Describe the phase, as in '8 rows of 128 tokens, task.mask_rate=0.3'."""
        return ', '.join([f'{self.batch_size:,} rows of {self.length:,} tokens', *self.settings])


def make_phases(experiment: Experiment, examples: int) -> list[Phase]:
    """Compute the phases of a run, see `Experiment.phases`.

    Args:
      experiment: config of the run.
      examples: number of training examples, for durations in epochs.
    """
    phases, start = [], 0
    for duration, length, batch_size, settings in experiment.phases:
        steps = duration_to_steps(duration, batch_size=batch_size, examples=examples)
        phases.append(Phase(start, start + steps, length, batch_size, settings))
        start += steps
    if start > _MAX_STEPS:
        raise UserError(
            f'The run has {start:,} steps, but {_MAX_STEPS:,} is the limit. Train for fewer steps.'
        )
    return phases


def tokens_until(phases: Sequence[Phase], step: int) -> int:
    """Count the tokens of the first `step` updates, with padding."""
    return sum(
        max(0, min(step, phase.stop) - phase.start) * phase.batch_size * phase.length for phase in phases
    )


def duration_units(phases: Sequence[Phase], examples: int) -> dict[str, Any]:
    """Return the arguments with which `duration_to_steps` converts epochs and examples of a run.

    Args:
      phases: phases of the run.
      examples: number of training examples, in rows of the first phase.
    """
    sizes: Any = tuple((phase.stop - phase.start, phase.batch_size) for phase in phases)
    if len({size for _, size in sizes}) == 1:
        sizes = phases[0].batch_size
    return {'batch_size': sizes, 'examples': examples}


def optim_config(experiment: Experiment, task: Any) -> OptimConfig:
    """Return the optimizer of a run, with the parameters that its task does not train among the frozen ones."""
    frozen_encoder = [f'{experiment.model.name}/'] if getattr(task, 'freezes_encoder', False) else []
    return dataclasses.replace(experiment.optim, frozen=(*experiment.optim.frozen, *frozen_encoder))


def phase_task(experiment: Experiment, task: Any, settings: Sequence[str]) -> Any:
    """Return the task of a phase.

    Args:
      experiment: config of the run.
      task: task of the run without the settings of a phase.
      settings: settings of the phase.
    """
    return experiment.in_phase(settings).make_task(task.tokenizer) if settings else task


class Program(NamedTuple):
    """What a phase trains and evaluates with.

    Attributes:
      config: JSON-ready config of the phase, for its checkpoints.
      step_fn: train step, a function of state and batch.
      evaluate: function that evaluates parameters; None for no evaluation.
    """

    config: dict[str, Any]
    step_fn: Any
    evaluate: Evaluate | None


class Programs:
    """The programs of the phases of a run. Phases with the same settings share them.

    Args:
      experiment: config of the run.
      task: its task, without the settings of a phase.
      phases: its phases.
      units: result of `duration_units`.
      partitioner: mesh.
    """

    def __init__(
        self,
        experiment: Experiment,
        task: Any,
        phases: Sequence[Phase],
        units: Mapping[str, Any],
        partitioner: Partitioner,
    ):
        self._experiment, self._phases = experiment, phases
        train, optimizer = experiment.train, optim_config(experiment, task)
        total = phases[-1].stop

        @functools.cache
        def make_step(settings: tuple[str, ...]) -> tuple[Any, state_lib.Layout, Any]:
            phase_experiment = experiment.in_phase(settings)
            trained_task = phase_task(experiment, task, settings)
            layout, step_fn = make_train_step(
                trained_task,
                phase_experiment.model,
                optimizer,
                total,
                partitioner,
                train.seed,
                train.accumulation_steps,
                train.prng,
                **units,
            )
            return trained_task, layout, step_fn

        self._make_step = make_step

    @property
    def layout(self) -> state_lib.Layout:
        """Layout of the state, whose shapes and shardings are those of all phases."""
        return self._make_step(_compiled_settings(self._phases[0]))[1]

    def task(self, phase: Phase) -> Any:
        """Return the task of a phase."""
        return self._make_step(_compiled_settings(phase))[0]

    def make(self, phase: Phase, make_evaluator: MakeEvaluator) -> Program:
        """Make the program of a phase.

        Args:
          phase: the phase.
          make_evaluator: creates the evaluation from config, task and layout of the phase.
        """
        task, layout, step_fn = self._make_step(_compiled_settings(phase))
        experiment = self._experiment.in_phase(phase.settings)
        return Program(experiment.as_dict(), step_fn, make_evaluator(experiment, task, layout))

    def log(self) -> None:
        """Log the phases of a run that has several, and how many train steps it compiles."""
        if len(self._phases) == 1:
            return
        for phase in self._phases:
            logging.info('steps %s to %s: %s', f'{phase.start:,}', f'{phase.stop:,}', phase.describe())
        shapes = {(phase.length, phase.batch_size, _compiled_settings(phase)) for phase in self._phases}
        logging.info('the phases compile %d train steps', len(shapes))


def _compiled_settings(phase: Phase) -> tuple[str, ...]:
    """Return the settings of a phase that its train step depends on."""
    return tuple(setting for setting in phase.settings if not setting.startswith('data.'))
