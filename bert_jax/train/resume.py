"""Compare a config with the run in its working directory: start there, resume the run, or train it longer."""

import dataclasses
import json
import logging
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax.core import config as config_lib
from bert_jax.core import distributed, paths
from bert_jax.core.cadence import duration_to_steps
from bert_jax.core.errors import UserError, first_line
from bert_jax.train import checkpoint
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import KEYS_WITHOUT_EFFECT, Experiment, describe_changes
from bert_jax.train.phases import duration_units, make_phases

# Prefixes of keys that may change when a run is resumed.
_CHANGEABLE = (*KEYS_WITHOUT_EFFECT, 'checkpoint', 'train.eval_every')
_SECTIONS = tuple(field.name for field in dataclasses.fields(Experiment))
# Schedules with a constant learning rate between the warmup and a possible decay at the end.
_CONSTANT_SCHEDULES = ('constant', 'wsd')


def read_saved_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read the config of the run in a working directory; None if it has no checkpoint, so that it cannot be resumed.

    Raises:
      UserError: if the file is damaged.
    """
    file = workdir / 'config.json'
    if not file.is_file() or not checkpoint.list_saved(workdir):
        return None
    try:
        config = experiment_lib.add_defaults(paths.read_json(file))
        if missing := [s for s in _SECTIONS if not isinstance(config.get(s), dict)]:
            raise ValueError(f'no section {missing[0]!r}')
        return config
    except ValueError as e:
        raise UserError(
            f'{str(file)!r} is damaged ({first_line(e)}). Delete it to resume with the same command as before, or choose '
            'another --workdir.'
        ) from e


def check_config(workdir: pathlib.Path, saved: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """Check that a config agrees with that of the run in a working directory, except for what `train_longer` handles.

    Args:
      workdir: the directory.
      saved: result of `read_saved_config`.
      config: JSON-ready sections of the config. Keys that may change when a run is resumed are ignored.

    Raises:
      UserError: if another key differs.
    """
    if saved is None:
        return
    before = {section: values for section, values in saved.items() if section in config}
    ignored = [*_CHANGEABLE, 'train.steps']
    if _keeps_warmup(before['optim'], config['optim']):
        ignored.append('optim.warmup')
    if (before['train'].get('packing'), config['train']['packing']) == ('auto', 'off'):
        ignored.append('train.packing')  # the run began when its task could not pack texts
    if describe_changes(before, dict(config), ignored):
        ignored.remove('train.steps')  # which may be a mistake as well
        changes = describe_changes(before, dict(config), ignored)
        raise UserError(
            f'{str(workdir)!r} contains a run with another config ({config_lib.list_changes(changes)}). '
            'Choose another --workdir, or restore the config to resume.'
        )


def _keeps_warmup(saved: Mapping[str, Any], optim: Mapping[str, Any]) -> bool:
    """Return whether a run keeps the warmup that it began with, although the config has a fraction of another length."""
    is_fraction = isinstance(optim['warmup'], float) and optim['warmup'] <= 1
    return (
        saved.get('schedule') in _CONSTANT_SCHEDULES and is_fraction and isinstance(saved.get('warmup'), int)
    )


def write_config(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Write the config of an experiment to `config.json` in a working directory.

    Raises:
      UserError: if the directory cannot be written.
    """
    file, config = workdir / 'config.json', json.loads(config_lib.to_json(experiment.as_dict()))
    try:
        earlier = experiment_lib.add_defaults(paths.read_json(file)) if file.is_file() else config
    except ValueError:
        earlier = {}
    changes = describe_changes(earlier, config)
    if changes and not checkpoint.list_saved(workdir):
        message = 'the run in %s saved no checkpoint, so it starts again with the new config (%s)'
        logging.info(message, workdir, config_lib.list_changes(changes))
    try:
        paths.write_atomic(file, config_lib.to_json(config))
    except OSError as e:
        raise UserError(
            f'{str(workdir)!r} cannot be written ({e.strerror}). Choose another --workdir.'
        ) from e


def train_longer(
    workdir: pathlib.Path,
    saved: Mapping[str, Any],
    experiment: Experiment,
    count_examples: Callable[[], int],
    make_command: Callable[[int], str],
) -> Experiment:
    """Compare the number of steps with that of the run in a working directory, and prepare to continue the run.

    A run with more steps continues if it has a checkpoint up to which its learning rates were those of the longer run:
    any with a constant schedule, one from before the decay with warmup-stable-decay. Checkpoints from the decay are
    renamed to `decayed-STEP`.

    Args:
      workdir: the directory.
      saved: its config, which `check_config` has accepted.
      experiment: complete config.
      count_examples: returns the number of training examples.
      make_command: returns the command of a new run of this many steps from the newest checkpoint.

    Returns:
      The experiment, with the number of warmup steps that the run began with.

    Raises:
      UserError: if the run cannot continue; the message contains the command of a new run.
    """
    before = experiment_lib.from_config(saved)
    optim = experiment.optim
    if (before.phases, before.optim.warmup) == (experiment.phases, optim.warmup):
        return experiment
    examples = count_examples()
    old, new = (make_phases(e, examples)[-1].stop for e in (before, experiment))
    units = duration_units(make_phases(experiment, examples), examples)
    warmup = duration_to_steps(before.optim.warmup, total=old, **units)
    steps = checkpoint.list_saved(workdir)
    reached = int(steps[-1].name)
    if new < reached:
        raise UserError(
            f'{str(workdir)!r} has trained {reached:,} steps, more than train.steps={experiment.train.steps!r}. Restore '
            f'train.steps={before.train.steps!r}, or choose another --workdir.'
        )
    if new != old:
        unchanged = {
            'constant': reached,
            'wsd': min(t - duration_to_steps(optim.decay, total=t, **units) for t in (old, new)),
        }.get(optim.schedule, 0)  # number of steps whose learning rate is the same with both numbers of steps
        kept = [step for step in steps if int(step.name) <= unchanged]
        if not kept:
            raise UserError(
                f'{str(workdir)!r} has no checkpoint from before optim.schedule={optim.schedule!r} lowered the learning '
                f'rate towards the end of {old:,} steps. To train longer, start a new run from its checkpoint: '
                f'`{make_command(new - reached or new)}`.'
            )
        for step in steps[len(kept) :] if distributed.is_lead() else ():
            checkpoint.set_aside(step, f'decayed-{step.name}')
            logging.info('renamed the checkpoint of step %s to decayed-%s', step.name, step.name)
        logging.info(
            'training %d steps instead of %d, from the checkpoint of step %s', new, old, kept[-1].name
        )
    if (
        optim.schedule in _CONSTANT_SCHEDULES
        and duration_to_steps(optim.warmup, total=new, **units) != warmup
    ):
        logging.info('optim.warmup stays at %d steps, with which the run began', warmup)
        optim = dataclasses.replace(optim, warmup=warmup)
    return dataclasses.replace(experiment, optim=optim)


def command_from_checkpoint(
    spec: str, workdir: pathlib.Path, overrides: Sequence[str], experiment: Experiment, steps: int
) -> str:
    """Return the command that trains `steps` more steps from the checkpoint of a run, in another working directory.

    Args:
      spec: config file of the run, with its argument.
      workdir: its working directory.
      overrides: its `a.b=value` overrides.
      experiment: its config.
      steps: number of steps.
    """
    replaced = ('init.', 'tokenizer.', 'train.steps=', 'train.seed=')
    kept = [o for o in overrides if not o.startswith(replaced) and not experiment_lib.is_architecture(o)]
    settings = [
        f'init.checkpoint={workdir}',
        f'train.steps={steps}',
        f'train.seed={experiment.train.seed + 1}',  # for another order of the data
        *(['init.weights=pretrained'] if experiment.init.weights != 'pretrained' else []),
        *kept,
    ]
    flags = [f'--config={spec}', f'--workdir={workdir}_longer', *(f'--config.{s}' for s in settings)]
    return shlex.join(['python', '-m', 'bert_jax.bin.train', *flags])
