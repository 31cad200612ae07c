"""Many runs of one config: over seeds, over a grid, and what they say together."""

import itertools
import pathlib
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bert_jax.core import metrics
from bert_jax.core.errors import UserError
from bert_jax.experiments import runs
from bert_jax.experiments.jobs import Job

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


def jobs(
    config: str,
    workdir: pathlib.Path,
    grid: Mapping[str, Sequence[str]],
    seeds: int,
    overrides: Sequence[str],
) -> list[Job]:
    """Trainings of every cell with every seed, each in a working directory of its own.

    Args:
      config: the config file, with its argument.
      workdir: the folder of all runs.
      grid: values of keys, as they are written on the command line.
      seeds: how many, from 0.
      overrides: `a.b=value` for all runs.

    Raises:
      UserError: if a value stands in the grid twice.
    """
    for key, values in grid.items():
        if len({*values}) < len(values):
            raise UserError(f'{key}={",".join(values)} has a value twice: give each once.')
    return [
        Job(
            workdir / folder(cell) / f'seed{seed}',
            config,
            (*overrides, *(f'{key}={value}' for key, value in cell.items()), f'train.seed={seed}'),
        )
        for cell in cells(grid)
        for seed in range(seeds)
    ]


def summary(
    workdir: pathlib.Path,
    grid: Mapping[str, Sequence[str]],
    seeds: int,
    score: str,
    unfit: Collection[pathlib.Path] = (),
) -> dict[str, Any]:
    """What the runs say together.

    Args:
      workdir, grid, seeds: as given to `jobs`.
      score: its name, such as 'accuracy'; the last evaluation of each run counts.
      unfit: runs that did not end well, whatever stands in their folders.

    Returns:
      `cells`, each with its settings, the score of every seed (None for a failed run) and mean, std (n - 1),
      median, n and failed; and `best`, the number of the cell with the best mean, of a loss the lowest. A run has failed if it
      was not finished, or its accuracy is not above the share of the largest class.
    """
    found: list[dict[str, Any]] = []
    for cell in cells(grid):
        places = [workdir / folder(cell) / f'seed{seed}' for seed in range(seeds)]
        scores = [{} if place in unfit else runs.last_scores(place) for place in places]
        values = [None if place in unfit else runs.score(place, score) for place in places]
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
    sign = -1 if metrics.is_loss(score) else 1
    means = [sign * c['mean'] if c['mean'] is not None else float('-inf') for c in found]
    return {'score': score, 'cells': found, 'best': means.index(max(means))}


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
        star = '*' if i == found['best'] and c['n'] else ' '
        lines.append(
            f'{star} {name:<{width}}  {numbers[0]} {numbers[1]} {numbers[2]}  {c["n"]:2}  {c["failed"]:6}'
        )
    return '\n'.join(lines)
