"""Many runs of one config: over seeds, over a grid, and what they say together."""

import contextlib
import itertools
import logging
import pathlib
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.core.errors import Diverged, UserError
from bert_jax.evals import runs
from bert_jax.train import experiment

# Devlin et al. 2019, appendix A.3: every task was tried with all of these, and the best on the development set kept.
RECIPE = {
    'train.batch_size': ('16', '32'),
    'optim.learning_rate': ('5e-5', '3e-5', '2e-5'),
    'train.steps': ('2 epochs', '3 epochs', '4 epochs'),
}

Cell = dict[str, str]


def cells(grid: Mapping[str, Sequence[str]]) -> list[Cell]:
    """All combinations of the values of a grid; one empty cell of none."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def folder(cell: Cell) -> str:
    """A name for the runs of a cell, such as 'batch_size=16,learning_rate=5e-5'."""
    parts = [f'{key.rpartition(".")[2]}={value.replace(" ", "_")}' for key, value in cell.items()]
    return ','.join(parts).replace('/', '_') or 'runs'


def run(
    config: str,
    workdir: pathlib.Path,
    grid: Mapping[str, Sequence[str]],
    seeds: int,
    overrides: Sequence[str],
    score: str,
) -> int:
    """Trains every cell with every seed, one after the other, each in a working directory of its own.

    Args:
      config: the config file, with its argument.
      workdir: the folder of all runs.
      grid: values of keys, as they are written on the command line.
      seeds: how many, from 0.
      overrides: `a.b=value` for all runs.
      score: the name of the score, such as 'accuracy'; the last evaluation of each run counts.

    What is finished stays; what was interrupted goes on. A run whose loss is not finite is noted by its
    missing evaluation, and the others go on.

    Returns:
      0, or the status of a run that was told to stop.

    Raises:
      UserError: before any run, if one of them has settings that cannot be; after one that could not be
        trained, or that has no such score.
    """
    todo = {
        workdir / folder(cell) / f'seed{seed}': [*overrides, *_settings(cell), f'train.seed={seed}']
        for cell in cells(grid)
        for seed in range(seeds)
    }
    for settings in todo.values():
        experiment.read(config, settings)
    for number, (place, settings) in enumerate(todo.items(), 1):
        logging.info('run %d of %d: %s', number, len(todo), place)
        words = ['-m', 'bert_jax.bin.train', f'--config={config}', f'--workdir={place}']
        status = _call([sys.executable, *words, *(f'--config.{s}' for s in settings)])
        if status in (75, 130, 143) or status < 0:
            return status if status > 0 else 128 - status
        if status == Diverged.status:
            logging.warning('%s: the loss was not finite, and the run counts as failed', place)
        elif status:
            raise UserError(f'{str(place)!r} was not trained (status {status}): mend what is said above.')
        runs.score(place, score)
    return 0


def _settings(cell: Cell) -> list[str]:
    return [f'{key}={value}' for key, value in cell.items()]


def _call(command: Sequence[str]) -> int:
    """Runs a command to its end; returns its status. What tells this process to stop tells the command.

    If that has just ended well, the status is that of a process which was stopped.
    """
    told = []
    with subprocess.Popen(command) as child, contextlib.ExitStack() as stack:

        def stop(number: int, frame: Any) -> None:  # a terminal sends SIGINT to both
            told.append(128 + number)
            child.terminate()

        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, stop))
        return child.wait() or next(iter(told), 0)


def summary(
    workdir: pathlib.Path, grid: Mapping[str, Sequence[str]], seeds: int, score: str
) -> dict[str, Any]:
    """What the runs say together.

    Args:
      workdir, grid, seeds, score: as given to `run`.

    Returns:
      `cells`, each with its settings, the score of every seed (None for a failed run) and mean, std (n - 1),
      median, n and failed; and `best`, the number of the cell with the best mean, of a loss the lowest. A run has failed if it
      was not finished, or its accuracy is not above the share of the largest class.
    """
    found: list[dict[str, Any]] = []
    for cell in cells(grid):
        places = [workdir / folder(cell) / f'seed{seed}' for seed in range(seeds)]
        scores, values = (
            [runs.last_scores(place) for place in places],
            [runs.score(place, score) for place in places],
        )
        right = [v for v in values if v is not None]
        found.append(
            {
                'settings': cell,
                'scores': values,
                'mean': statistics.fmean(right) if right else None,
                'std': statistics.stdev(right) if len(right) > 1 else None,
                'median': statistics.median(right) if right else None,
                'n': len(right),
                'failed': sum(map(_failed, scores)),
            }
        )
    sign = -1 if score.endswith(_LOSSES) else 1
    means = [sign * c['mean'] if c['mean'] is not None else float('-inf') for c in found]
    return {'score': score, 'cells': found, 'best': means.index(max(means))}


_LOSSES = ('loss', 'cross_entropy', 'squared_error')


def _failed(scores: Mapping[str, float]) -> bool:
    if not scores:
        return True
    return 'majority' in scores and scores.get('accuracy', 1.0) <= scores['majority']


def table(found: Mapping[str, Any]) -> str:
    """The summary for people; the best cell has a star."""
    names = [', '.join(c['settings'].values()) or 'as configured' for c in found['cells']]
    keys = ', '.join(k.rpartition('.')[2] for k in found['cells'][0]['settings'])
    width = max(map(len, [*names, keys]))
    lines = [f'  {keys:<{width}}  {found["score"]:>8}     std   median   n  failed']
    for i, (name, c) in enumerate(zip(names, found['cells'], strict=True)):
        numbers = ['       -' if c[k] is None else f'{c[k]:8.4f}' for k in ('mean', 'std', 'median')]
        star = '*' if i == found['best'] else ' '
        lines.append(
            f'{star} {name:<{width}}  {numbers[0]} {numbers[1]} {numbers[2]}  {c["n"]:2}  {c["failed"]:6}'
        )
    return '\n'.join(lines)
