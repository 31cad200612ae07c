"""Average the parameters of checkpoints."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import config as config_lib
from bert_jax.core import paths, stacking
from bert_jax.core.errors import UserError
from bert_jax.train import checkpoint
from bert_jax.train import experiment as experiment_lib


def find_checkpoints(sources: Sequence[pathlib.Path], last: int) -> list[pathlib.Path]:
    """List the folders of the checkpoints to average.

    Args:
      sources: working directories, or folders of single steps.
      last: number of newest checkpoints to take from each source; 0 takes all.

    Raises:
      UserError: if a source has fewer checkpoints, or there is only one checkpoint to average.
    """
    found = []
    for source in sources:
        checkpoint.read_metadata(source)  # raises UserError if there is none
        steps = checkpoint.list_steps(source)
        if len(steps) < last:
            names = ', '.join(step.name for step in steps)
            raise UserError(
                f'{str(source)!r} has {len(steps)} checkpoints ({names}), fewer than --last={last}. Lower --last, or train '
                'with a larger checkpoint.keep.'
            )
        found += steps[-last:]
    if len({*map(paths.absolute, found)}) < len(found):
        raise UserError('The checkpoints of --from overlap. Pass each run or step once.')
    if len(found) < 2:
        raise UserError(
            f'{str(found[0])!r} is the only checkpoint. Pass the --workdir of a run that keeps several.'
        )
    return found


def average(steps: Sequence[pathlib.Path], workdir: pathlib.Path) -> None:
    """Write a checkpoint with the mean of the parameters of others (Izmailov et al. 2018, stochastic weight averaging).

    The sums are float32. Config and tokenizer are those of the last checkpoint, and its number of steps names the new one.

    Args:
      steps: folders of checkpoints, see `find_checkpoints`.
      workdir: new working directory.

    Raises:
      UserError: if the models or tokenizers differ, a checkpoint is damaged, or `workdir` has a checkpoint already.
    """
    if checkpoint.list_steps(workdir):
        raise UserError(f'{str(workdir)!r} already contains a checkpoint. Choose another --to.')
    metadata = [checkpoint.read_metadata(step)[1] for step in steps]
    for step, other in zip(steps, metadata, strict=True):
        _check_equal(steps[-1], metadata[-1], step, other)
    shapes = [_read_shapes(step) for step in steps]
    for step, others in zip(steps, shapes, strict=True):
        _check_shapes(steps[0], shapes[0], step, others)
    sums = {name: np.zeros(shape.shape, np.float32) for name, shape in shapes[0].items()}
    for step in steps:
        params = jax.device_get(checkpoint.read_params(step, shapes[0]))
        for name in sums:
            sums[name] += params.pop(name)
        logging.info('read %s', step)
    means = {name: total / np.float32(len(steps)) for name, total in sums.items()}
    newest = metadata[-1]
    about = {
        'config': newest['config'],
        'tokenizer': newest['tokenizer'],
        'averaged': [str(step) for step in steps],
    }
    checkpoint.write_params(workdir, jax.tree.map(jax.numpy.asarray, means), about, newest['step'])


def _read_shapes(step: pathlib.Path) -> dict[str, Any]:
    try:
        return stacking.unstack(checkpoint.read_param_shapes(step))
    except Exception as e:  # such as a missing file
        raise UserError(
            f'The parameters in {str(step)!r} are damaged or incomplete. Use another checkpoint.'
        ) from e


def _check_equal(
    newest: pathlib.Path, expected: Mapping[str, Any], step: pathlib.Path, found: Mapping[str, Any]
) -> None:
    """Raise UserError if model or tokenizer of a checkpoint are not those of the newest one."""
    ignored = [f'model.{key}' for key in experiment_lib.RUNTIME_KEYS]
    before, now = ({'model': about['config']['model']} for about in (found, expected))
    if changes := experiment_lib.describe_changes(before, now, ignored):
        raise UserError(
            f'{str(step)!r} and {str(newest)!r} have different models ({config_lib.list_changes(changes)}). Average '
            'checkpoints of one model.'
        )
    if found['tokenizer'] != expected['tokenizer']:
        raise UserError(
            f'{str(step)!r} and {str(newest)!r} have different tokenizers. Average checkpoints of one tokenizer.'
        )


def _check_shapes(
    first: pathlib.Path, expected: Mapping[str, Any], step: pathlib.Path, found: Mapping[str, Any]
) -> None:
    """Raise UserError if the parameters of a checkpoint are not those of the first one."""
    for name in sorted({*expected, *found}):
        shapes = [x[name].shape if name in x else 'missing' for x in (expected, found)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f'{name} is {shapes[0]} in {str(first)!r}, but {shapes[1]} in {str(step)!r}. Average checkpoints of one '
                'model and one task.'
            )
