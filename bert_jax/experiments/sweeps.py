"""Run one config with several settings and seeds, and compare their scores."""

import collections
import hashlib
import itertools
import math
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core import config as config_lib
from bert_jax.core import goodput, metrics
from bert_jax.core.errors import UserError, first_line
from bert_jax.experiments import runs, status
from bert_jax.experiments.jobs import Job, distinct_reasons, find_unfinished
from bert_jax.train import experiment

Settings = dict[str, Any]

# Devlin et al. 2019, appendix A.3: try all combinations and keep the one with the best score on the development set.
RECIPE: dict[str, tuple[Any, ...]] = {
    'train.batch_size': (16, 32),
    'optim.learning_rate': (5e-5, 3e-5, 2e-5),
    'train.steps': ('2 epochs', '3 epochs', '4 epochs'),
}


class Trial(NamedTuple):
    """One setting of a sweep.

    Attributes:
      settings: values of config keys.
      jobs: the training jobs with these settings, one for each seed.
    """

    settings: Settings
    jobs: tuple[Job, ...]


def grid(values: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Return all combinations of the values of several config keys.

    Raises:
      UserError: if a key has the same value twice.
    """
    for key, choices in values.items():
        if len({*choices}) < len(choices):
            raise UserError(
                f'{key} contains a duplicate value: {", ".join(map(str, choices))}. Write each value once.'
            )
    return [dict(zip(values, choices, strict=True)) for choices in itertools.product(*values.values())]


def parse_values(text: str) -> tuple[Any, ...]:
    """Parse the comma-separated values of one key on the command line."""
    return tuple(config_lib.parse_value(part) for part in text.split(','))


def from_config(spec: str) -> list[Settings]:
    """Return the settings that the function `sweep(add)` of a config file adds; without this function, one empty setting.

    Raises:
      UserError: if `sweep` fails, adds nothing or the same setting twice, or sets the seed.
    """
    path = spec.partition(':')[0]
    function = getattr(config_lib.load_module(path), 'sweep', None)
    if function is None:
        return [{}]
    added: list[Settings] = []
    try:
        function(added.append)
        added = [{k: _to_python(v) for k, v in settings.items()} for settings in added]
    except Exception as e:
        raise UserError(
            f'The function sweep(add) in {path!r} failed ({first_line(e)}). Call add({{"optim.learning_rate": 1e-4}}) for each setting.'
        ) from e
    names = [name(settings) for settings in added]
    if not added or len({*names}) < len(names):
        raise UserError(
            f'The function sweep(add) in {path!r} adds no setting, or adds one twice. Add each setting once.'
        )
    if any('train.seed' in settings for settings in added):
        raise UserError(f'The function sweep(add) in {path!r} sets train.seed. Remove it and pass --seeds=N.')
    return added


def _to_python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def name(settings: Settings) -> str:
    """Return the folder name of a setting, such as 'learning_rate=0.0001,batch_size=16', for any order of its keys."""
    settings = dict(sorted(settings.items()))
    short = [key.rpartition('.')[2] for key in settings]
    keys = short if len({*short}) == len(short) else list(settings)
    text = ','.join(f'{key}={value}' for key, value in zip(keys, settings.values(), strict=True)) or 'runs'
    plain = re.sub(r'[^\w.,=+-]+', '_', text)[:100]
    if plain == text:
        return plain
    return f'{plain}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}'


def trials(
    spec: str, workdir: pathlib.Path, settings: Sequence[Settings], seeds: int, overrides: Sequence[str]
) -> list[Trial]:
    """Create the training jobs for each setting and seed, in the folders `SETTING/seedN`.

    Args:
      spec: the config file, with its argument.
      workdir: the folder of all runs.
      settings: the settings to compare.
      seeds: number of seeds, counted from 0.
      overrides: `a.b=value` for all runs.
    """
    found = []
    for setting in settings:
        values = [f'{key}={_format(value)}' for key, value in setting.items()]
        jobs = [
            Job(workdir / name(setting) / f'seed{seed}', spec, (*overrides, *values, f'train.seed={seed}'))
            for seed in range(seeds)
        ]
        found.append(Trial(setting, tuple(jobs)))
    return found


def _format(value: Any) -> str:
    """Format a value for the command line. Text is quoted only if it would otherwise be parsed as another type."""
    is_plain_text = isinstance(value, str) and config_lib.parse_value(value) == value
    return value if is_plain_text else repr(value)


def objective(sweep: Sequence[Trial], score: str = '') -> tuple[str, bool]:
    """Choose the score to compare.

    Args:
      sweep: the trials.
      score: name of the score; by default `checkpoint.best_metric` of the config, or the loss if that is empty.

    Returns:
      The name of the score, and whether lower is better.
    """
    first = sweep[0].jobs[0]
    checkpoint = experiment.read(first.config, first.settings).checkpoint
    score = score or checkpoint.best_metric or 'loss'
    is_best_metric = score == checkpoint.best_metric
    return score, checkpoint.lower_is_better if is_best_metric else metrics.is_lower_better(score)


def summarize(
    sweep: Sequence[Trial], score: str, lowest: bool, failures: Mapping[pathlib.Path, str]
) -> dict[str, Any]:
    """Collect the scores of the finished runs.

    Args:
      sweep: the trials.
      score: name of the score; its value is taken from the last evaluation of each run.
      lowest: whether lower scores are better.
      failures: reasons, by folder, of the runs that did not finish.

    Returns:
      A dictionary with three keys. `score` is the name of the score. `best` is the index of the trial with the best mean;
      None if there are no scores. `trials` has, for each trial, its `settings`, the `scores` of its seeds (None for a
      missing score), their `mean`, `std` (sample standard deviation), `median` and number `n`, and `failed`: the number
      of runs that did not finish, have a score that is not finite, or are not more accurate than the majority class.

    Raises:
      UserError: if the runs have no score of this name.
    """
    found: list[dict[str, Any]] = []
    unfinished = find_unfinished([job for trial in sweep for job in trial.jobs])
    for trial in sweep:
        scores = [
            runs.final_score(job.folder, score) if job.folder not in unfinished else None
            for job in trial.jobs
        ]
        scores = [s if s is not None and math.isfinite(s) else None for s in scores]
        valid = [s for s in scores if s is not None]
        found.append(
            {
                'settings': trial.settings,
                'scores': scores,
                'mean': statistics.fmean(valid) if valid else None,
                'std': statistics.stdev(valid) if len(valid) > 1 else None,
                'median': statistics.median(valid) if valid else None,
                'n': len(valid),
                'failed': sum(
                    job.folder in failures
                    or (job.folder not in unfinished and (s is None or _is_degenerate(job.folder)))
                    for job, s in zip(trial.jobs, scores, strict=True)
                ),
            }
        )
    best = _ranking(found, lowest)[0]
    return {'score': score, 'trials': found, 'best': None if found[best]['mean'] is None else best}


def _ranking(found: Sequence[Mapping[str, Any]], lowest: bool) -> list[int]:
    """Return the indices of trials, the best mean score first and trials without scores last."""

    def rank(i: int) -> float:
        mean = found[i]['mean']
        return math.inf if mean is None else mean if lowest else -mean

    return sorted(range(len(found)), key=rank)


def _is_degenerate(folder: pathlib.Path) -> bool:
    """Whether a run is not more accurate than always predicting the majority class."""
    scores = runs.final_scores(folder)
    return 'majority' in scores and scores.get('accuracy', 1.0) <= scores['majority']


def table(
    sweep: Sequence[Trial], summary: Mapping[str, Any], lowest: bool, failures: Mapping[pathlib.Path, str]
) -> list[list[str]]:
    """Tabulate a sweep, one line per trial: the best first, marked with a star; trials without scores last.

    Args:
      sweep: the trials.
      summary: their scores, as returned by `summarize`.
      lowest: whether lower scores are better.
      failures: reasons, by folder, of the runs that did not finish.
    """
    keys = list(dict.fromkeys(key for trial in sweep for key in trial.settings))
    lines = [['', *keys, summary['score'], 'n', 'failed', 'state', 'step']]
    for i in _ranking(summary['trials'], lowest):
        found = summary['trials'][i]
        score = runs.mean_and_spread([s for s in found['scores'] if s is not None])
        values = [str(sweep[i].settings.get(key, '')) for key in keys]
        best = '*' if i == summary['best'] else ''
        lines.append(
            [best, *values, score, str(found['n']), str(found['failed']), *_progress(sweep[i], failures)]
        )
    return lines


def _progress(trial: Trial, failures: Mapping[pathlib.Path, str]) -> tuple[str, str]:
    """Summarize the runs of a trial: their states, such as '2 done, 1 running', and the lowest step among them."""
    reasons = distinct_reasons(failures)
    unfinished = find_unfinished(trial.jobs)
    states, steps, totals = [], [], []
    for job in trial.jobs:
        state = 'not started'
        if job.folder in failures:
            state = f'failed [{reasons.index(failures[job.folder]) + 1}]'
        elif unfinished.get(job.folder):
            state = 'changed'
        elif (job.folder / 'config.json').is_file():
            state, step, total = status.state(runs.read(job.folder), job.folder, goodput.read(job.folder))
            steps.append(step)
            totals.append(total)
        states.append(state)
    counts = collections.Counter(states)
    text = ', '.join(counts if len(counts) == 1 else (f'{n} {state}' for state, n in counts.items()))
    return text, status.format_step(min(steps), max(totals)) if steps else ''
