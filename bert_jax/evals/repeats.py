"""Many runs of one config: over seeds, over a grid, and what they say together."""

import itertools
import logging
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.evals import runs

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
) -> int:
    """Trains every cell with every seed, one after the other, each in a working directory of its own.

    What is finished stays; what was interrupted goes on. A run that fails (a loss that is not finite, say)
    is noted by its missing evaluation, and the others go on.

    Returns:
      0, or the status of a run that was told to stop.
    """
    todo = [(cell, seed) for cell in cells(grid) for seed in range(seeds)]
    for number, (cell, seed) in enumerate(todo, 1):
        place = workdir / folder(cell) / f'seed{seed}'
        logging.info('run %d of %d: %s', number, len(todo), place)
        settings = [*overrides, *(f'{k}={v}' for k, v in cell.items()), f'train.seed={seed}']
        words = ['-m', 'bert_jax.bin.train', f'--config={config}', f'--workdir={place}']
        status = subprocess.call([sys.executable, *words, *(f'--config.{s}' for s in settings)])
        if status == 2 or (status and not (place / 'config.json').exists()):
            raise UserError(
                f'The first runs cannot begin: mend the command, as said above (status {status}).'
            )
        if status in (75, 130, 143) or status < 0:
            return status if status > 0 else 128 - status
        if status:
            logging.warning('%s ended with status %d and counts as failed', place, status)
    return 0


def summary(
    workdir: pathlib.Path, grid: Mapping[str, Sequence[str]], seeds: int, score: str
) -> dict[str, Any]:
    """What the runs say together.

    Args:
      workdir, grid, seeds: as given to `run`.
      score: the name of the score, such as 'accuracy'; the last evaluation of each run counts.

    Returns:
      `cells`, each with its settings, the score of every seed (None for a failed run) and mean, std (n - 1),
      median, n and failed; and `best`, the number of the cell with the best mean. A run has failed if it
      was not finished, or its accuracy is not above the share of the largest class.
    """
    found: list[dict[str, Any]] = []
    for cell in cells(grid):
        scores = [_last(workdir / folder(cell) / f'seed{seed}') for seed in range(seeds)]
        values = [s.get(score) for s in scores]
        if known := next((s for s in scores if s and score not in s), None):
            raise UserError(
                f'The runs have no score {score!r}: known are {", ".join(k for k in known if k != "step")}.'
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
    means = [c['mean'] if c['mean'] is not None else float('-inf') for c in found]
    return {'score': score, 'cells': found, 'best': means.index(max(means))}


def _last(place: pathlib.Path) -> dict[str, float]:
    """The scores at the end of a run; empty if it has none."""
    try:
        evals = runs.read(place).evals
    except UserError:
        return {}
    return dict(evals[-1]) if evals else {}


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
