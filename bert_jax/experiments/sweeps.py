"""Runs of one config that differ in some settings, as the function `sweep(add)` beside `get_config` says."""

import ast
import contextlib
import hashlib
import math
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from bert_jax.core import config as config_lib
from bert_jax.core import goodput
from bert_jax.core.errors import UserError, first_line
from bert_jax.experiments import runs, status
from bert_jax.experiments.jobs import DONE, Job
from bert_jax.train import experiment

Settings = dict[str, Any]


def read(spec: str) -> list[Settings]:
    """The settings of each run, as `sweep` of a config file adds them.

    Raises:
      UserError: if the file has no `sweep`, or it adds nothing, or something twice.
    """
    path = spec.partition(':')[0]
    function = getattr(config_lib.execute(path), 'sweep', None)
    if function is None:
        raise UserError(
            f'{path!r} has no sweep(add): write one beside get_config, which calls add({{"optim.learning_rate": 1e-4}}) '
            'for each run.'
        )
    found: list[Settings] = []
    try:
        function(found.append)
        found = [dict(settings) for settings in found]
    except Exception as e:
        raise UserError(
            f'sweep(add) of {path!r} failed ({first_line(e)}): it calls add({{"optim.learning_rate": 1e-4}}) for each run.'
        ) from e
    names = [name(settings) for settings in found]
    if not found or len({*names}) < len(names):
        raise UserError(f'sweep of {path!r} must add runs, each of them once.')
    return found


def name(settings: Settings) -> str:
    """Of a run, from its settings alone, in whatever order: 'learning_rate=0.0001,batch_size=16'."""
    settings = dict(sorted(settings.items()))
    short = [key.rpartition('.')[2] for key in settings]
    keys = short if len({*short}) == len(short) else list(settings)
    text = ','.join(f'{key}={value}' for key, value in zip(keys, settings.values(), strict=True))
    plain = re.sub(r'[^\w.,=+-]+', '_', text)[:100]
    if plain == text:
        return plain
    return f'{plain}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}'


def jobs(spec: str, workdir: pathlib.Path, overrides: Sequence[str]) -> dict[Job, Settings]:
    """The runs, each in a folder of its own name, with `a.b=value` for all of them before its own."""
    found = {}
    for settings in read(spec):
        own = [f'{key}={_written(value)}' for key, value in settings.items()]
        found[Job(workdir / name(settings), spec, (*overrides, *own))] = settings
    return found


def _written(value: Any) -> str:
    """A value as it is written on the command line, where text that could be nothing else has no quotes."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError):
            ast.literal_eval(value)
            return repr(value)
        return value
    return repr(value)


def lines(sweep: dict[Job, Settings], failed: Collection[pathlib.Path] = ()) -> list[list[str]]:
    """A table: settings, state and score of each run, the best of those that are done first, with a star."""
    first = next(iter(sweep))
    chosen = experiment.read(first.config, first.settings).checkpoint
    score, sign = (chosen.best, 1 if chosen.lowest else -1) if chosen.best else ('loss', 1)
    keys = list(dict.fromkeys(key for settings in sweep.values() for key in settings))
    found = []
    for job, settings in sweep.items():
        state, step, value = 'not begun', '', None
        if job.place in failed:
            state = 'failed'
        elif (job.place / DONE).is_file() and not job.finished:
            state = 'done with other settings'
        elif (job.place / 'config.json').is_file():
            run = runs.read(job.place)
            state, at, total = status.state(run, job.place, goodput.read(job.place))
            step = f'{at:,}' + (f'/{total:,}' if total else '')
            value = run.evals[-1].get(score) if run.evals and state == 'done' else None
        cells = [str(settings.get(key, '')) for key in keys]
        rank = math.inf if value is None or not math.isfinite(value) else sign * value
        found.append((rank, value, [*cells, state, step]))
    found.sort(key=lambda item: item[0])
    out = [['', *keys, 'state', 'step', score]]
    for i, (_, value, cells) in enumerate(found):
        best = '*' if i == 0 and value is not None and math.isfinite(value) else ''
        out.append([best, *cells, '' if value is None else f'{value:.4f}'])
    return out
