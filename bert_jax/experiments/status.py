"""A run at a glance, while it goes on or after."""

import contextlib
import math
import pathlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.core import goodput, metrics, paths
from bert_jax.core.errors import UserError
from bert_jax.experiments import runs
from bert_jax.experiments.runs import Run
from bert_jax.train import checkpoint

_BARS = '▁▂▃▄▅▆▇█'


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Finite values as a line of bars, the mean of those that share one."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return ''
    n = min(width, len(values))
    parts = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return ''.join(_BARS[int((m - low) / (high - low or 1) * (len(_BARS) - 1) + 0.5)] for m in means)


def ago(seconds: float) -> str:
    """Seconds as '40 seconds', '12 minutes', '3 hours' or '5 days'."""
    for unit, size in (('day', 86400), ('hour', 3600), ('minute', 60)):
        if seconds >= 2 * size:
            return f'{seconds / size:.0f} {unit}s'
    return f'{seconds:.0f} seconds'


def state(run: Run, workdir: pathlib.Path, noted: Mapping[str, Any]) -> tuple[str, int, int]:
    """What a run is doing by what `goodput.read` found, its step, and of how many; 0 if that is not known."""
    step = int(run.train[-1]['step']) if run.train else 0
    if not noted:
        return 'begun' if step else 'not begun', step, 0
    last, total = noted['starts'][-1], noted['total']
    silent = time.time() - last['time']
    usual = (last['time'] - last['began']) / max(1, sum(line['step'] > last['from'] for line in run.train))
    if step >= total:
        return 'done', step, total
    if ended := last.get('ended'):
        return ended, step, total
    if last.get('host') == socket.gethostname() and not paths.is_held(workdir):
        return 'died', step, total
    return ('running' if silent < max(120, 5 * usual) else f'silent for {ago(silent)}'), step, total


def lines(workdir: pathlib.Path) -> list[str]:
    """One run: progress, speed, losses, last checkpoint, and where the time went.

    Raises:
      UserError: if the folder holds no run.
    """
    run, noted = runs.read(workdir), goodput.read(workdir)
    what, step, total = state(run, workdir, noted)
    found = [f'{workdir}: {what}, step {step:,}' + (f' of {total:,} ({step / total:.0%})' if total else '')]
    starts = noted.get('starts', [])
    if run.train:
        last = run.train[-1]
        speed = f'{metrics.human(last["tokens_per_second"])} tokens/s'
        if last['mfu'] == last['mfu']:
            speed += f', MFU {last["mfu"]:.1%}'
        if what == 'running' and step > starts[-1]['from']:
            once = sum(starts[-1]['lost'].get(kind, 0.0) for kind in ('start', 'compilation'))
            took = (starts[-1]['time'] - starts[-1]['began'] - once) / (step - starts[-1]['from'])
            speed += f', {metrics.clock(took * (total - step))} left'
        found.append(f'  {speed}')
    curves = {
        'loss': [line['loss'] for line in run.train],
        'evaluation': [line['loss'] for line in run.evals],
    }
    for name, values in curves.items():
        if values:
            found.append(f'  {name:10} {sparkline(values)} {values[0]:.4f} to {values[-1]:.4f}')
    if run.evals and run.score in run.evals[-1]:
        values = [line[run.score] for line in run.evals]
        found.append(f'  {run.score:10} {sparkline(values)} {values[0]:.4f} to {values[-1]:.4f}')
    last_saved = '  no checkpoint yet'
    if saved := checkpoint.steps(workdir):
        with contextlib.suppress(FileNotFoundError):  # it may just have made room for another
            since = ago(time.time() - saved[-1].stat().st_mtime)
            last_saved = f'  checkpoint of step {int(saved[-1].name):,}, {since} ago'
    found.append(last_saved)
    if shares := goodput.shares(starts):
        rest = ', '.join(
            f'{kind} {share:.1%}'
            for kind, share in sorted(shares.items(), key=lambda s: -s[1])
            if kind != 'steps' and share
        )
        whole = metrics.clock(starts[-1]['time'] - starts[0]['began'])
        found.append(f'  goodput {shares["steps"]:.1%} of {whole}' + (f' ({rest})' if rest else ''))
    return found


def table(folder: pathlib.Path) -> list[list[str]]:
    """A line for each run below a folder: state, step, loss and score.

    Raises:
      UserError: if there is none.
    """
    found = [['run', 'state', 'step', 'loss', 'score', 'value']]
    for place in sorted(p.parent for p in folder.rglob('config.json')):
        try:
            run = runs.read(place)
        except UserError:  # a config.json of something else
            continue
        what, step, total = state(run, place, goodput.read(place))
        value = run.evals[-1].get(run.score) if run.evals else None
        loss = f'{run.train[-1]["loss"]:.4f}' if run.train else ''
        name = str(place.relative_to(folder))
        share = f'{step:,}' + (f'/{total:,}' if total else '')
        found.append(
            [name, what, share, loss, *((run.score, f'{value:.4f}') if value is not None else ('', ''))]
        )
    if len(found) == 1:
        raise UserError(f'There is no run in {str(folder)!r}: give a --workdir that was trained.')
    return found
