"""Show the progress, state and scores of runs, during training or afterwards."""

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
    """Draw the finite values as at most `width` bars. Each bar shows the mean of several consecutive values."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return ''
    n = min(width, len(values))
    parts = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return ''.join(_BARS[int((m - low) / (high - low or 1) * (len(_BARS) - 1) + 0.5)] for m in means)


def format_age(seconds: float) -> str:
    """Format seconds as '40 seconds', '12 minutes', '3 hours' or '5 days'."""
    for unit, size in (('day', 86400), ('hour', 3600), ('minute', 60)):
        if seconds >= 2 * size:
            return f'{seconds / size:.0f} {unit}s'
    return f'{seconds:.0f} seconds'


def state(run: Run, workdir: pathlib.Path, progress: Mapping[str, Any]) -> tuple[str, int, int]:
    """Determine the state of a run, such as 'running', 'done' or 'failed'.

    Args:
      run: the run.
      workdir: its working directory.
      progress: the content of its progress file, as returned by `goodput.read`.

    Returns:
      The state, the last recorded step, and the total number of steps (0 if unknown).
    """
    step = int(run.train[-1]['step']) if run.train else 0
    if not progress:
        return 'started' if step else 'not started', step, 0
    last, total = progress['starts'][-1], progress['total']
    step = max(step, last['step'])
    silent = time.time() - last['time']
    logged = sum(line['step'] > last['from'] for line in run.train)
    log_interval = (last['time'] - last['began']) / max(1, logged)
    if step >= total:
        return 'done', step, total
    if ended := last.get('ended'):
        return ended, step, total
    if last.get('host') == socket.gethostname() and not paths.is_workdir_locked(workdir):
        return 'died', step, total
    is_running = silent < max(120, 5 * log_interval)
    return ('running' if is_running else f'silent for {format_age(silent)}'), step, total


def describe(workdir: pathlib.Path) -> list[str]:
    """Describe one run in a few lines: progress, speed, losses, last checkpoint and goodput.

    Raises:
      UserError: if the folder contains no run.
    """
    run, progress = runs.read(workdir), goodput.read(workdir)
    current, step, total = state(run, workdir, progress)
    lines = [
        f'{workdir}: {current}, step {step:,}' + (f' of {total:,} ({step / total:.0%})' if total else '')
    ]
    starts = progress.get('starts', [])
    if run.train:
        last = run.train[-1]
        speed = f'{metrics.format_count(last["tokens_per_second"])} tokens/s'
        if not math.isnan(last['mfu']):
            speed += f', MFU {last["mfu"]:.1%}'
        if current == 'running' and 'left' in starts[-1]:
            speed += f', {metrics.format_duration(starts[-1]["left"])} left'
        lines.append(f'  {speed}')
    curves = [
        ('loss', [line['loss'] for line in run.train]),
        ('evaluation', [line['loss'] for line in run.evals]),
    ]
    if run.evals and run.best_metric in run.evals[-1]:
        curves.append((run.best_metric, [line[run.best_metric] for line in run.evals]))
    for name, values in curves:
        if values:
            lines.append(f'  {name:10} {sparkline(values)} {values[0]:.4f} to {values[-1]:.4f}')
    last_saved = '  no checkpoint yet'
    if saved := checkpoint.list_steps(workdir):
        with contextlib.suppress(FileNotFoundError):  # the run may delete an old checkpoint at any moment
            age = format_age(time.time() - checkpoint.time_saved(saved[-1]))
            last_saved = f'  checkpoint of step {int(saved[-1].name):,}, {age} ago'
    lines.append(last_saved)
    if shares := goodput.time_shares(starts):
        overheads = ', '.join(
            f'{category} {share:.1%}'
            for category, share in sorted(shares.items(), key=lambda s: -s[1])
            if category != 'steps' and share
        )
        duration = metrics.format_duration(starts[-1]['time'] - starts[0]['began'])
        lines.append(
            f'  goodput {shares["steps"]:.1%} of {duration}' + (f' ({overheads})' if overheads else '')
        )
    return lines


def table(folder: pathlib.Path) -> list[list[str]]:
    """Tabulate state, step, loss and score of all runs below a folder, one line per run.

    Raises:
      UserError: if there is no run.
    """
    lines = [['run', 'state', 'step', 'loss', 'score', 'value']]
    for workdir in runs.find_workdirs(folder):
        run = runs.read(workdir)
        current, step, total = state(run, workdir, goodput.read(workdir))
        value = run.evals[-1].get(run.best_metric) if run.evals else None
        loss = f'{run.train[-1]["loss"]:.4f}' if run.train else ''
        score = (run.best_metric, f'{value:.4f}') if value is not None else ('', '')
        lines.append([str(workdir.relative_to(folder)), current, format_step(step, total), loss, *score])
    if len(lines) == 1:
        raise UserError(f'There is no run in {str(folder)!r}. Pass the --workdir of a training run.')
    return lines


def format_step(step: int, total: int) -> str:
    """Format a step as '1,000/20,000', or '1,000' if the total is unknown."""
    return f'{step:,}' + (f'/{total:,}' if total else '')
