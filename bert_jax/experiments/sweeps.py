"""Run one config with several settings and seeds, and compare their scores."""

import collections
import hashlib
import itertools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core import config as config_lib
from bert_jax.core import goodput
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
    """Return the folder name of a setting, such as 'learning_rate=0.0001,batch_size=16', for any order of its keys.

    The setting without keys is the config itself, the 'baseline'.
    """
    settings = dict(sorted(settings.items()))
    short = [key.rpartition('.')[2] for key in settings]
    keys = short if len({*short}) == len(short) else list(settings)
    text = (
        ','.join(f'{key}={value}' for key, value in zip(keys, settings.values(), strict=True)) or 'baseline'
    )
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


class Objective(NamedTuple):
    """The score that ranks the trials of a sweep.

    Attributes:
      score: name of the score; its value is taken from the last evaluation of each run.
      lower_is_better: whether lower values are better.
      note: why this score was chosen in place of the loss; empty if it was not.
    """

    score: str
    lower_is_better: bool
    note: str = ''

    @property
    def description(self) -> str:
        better = 'lower' if self.lower_is_better else 'higher'
        return f'{self.score}: mean ± sample standard deviation over n seeds; {better} is better.{self.note}'


def objective(sweep: Sequence[Trial], score: str = '') -> Objective:
    """Choose the score to compare.

    Args:
      sweep: the trials.
      score: name of the score; by default `checkpoint.best_metric` of the config or, if that is empty, 'accuracy' if the
        runs have it, and the loss otherwise. If the losses of the runs are sums of different terms, the default is the
        first term that all of them share.

    Raises:
      UserError: if some finished runs do not have the score, or their losses have different terms and share none.
    """
    checkpoint = experiment.read(sweep[0].jobs[0].config, sweep[0].jobs[0].settings).checkpoint
    jobs = [job for trial in sweep for job in trial.jobs]
    unfinished = find_unfinished(jobs)
    found = [s for job in jobs if job.folder not in unfinished and (s := runs.final_scores(job.folder))]
    shared = [name for name in found[0] if all(name in s for s in found)] if found else []
    chosen = score or checkpoint.best_metric or ('accuracy' if 'accuracy' in shared else 'loss')
    note = ''
    terms = [*dict.fromkeys(filter(None, map(runs.loss_terms, found)))]
    if chosen == 'loss' and len(terms) > 1:
        sums = ' or '.join(' + '.join(names) for names in terms)
        common = [name for name in terms[0] if all(name in names for names in terms)]
        if score or not common:
            others = ', '.join(name for name in shared if name not in ('step', 'loss'))
            remedy = (
                f'Pass --list and --score with one of {others}.'
                if others
                else ('Compare the models on a downstream task, in a table.')
            )
            raise UserError(f'The losses of the runs cannot be compared, since they are {sums}. {remedy}')
        chosen, note = common[0], f' The losses are not compared, since they are {sums}.'
    if found and chosen not in shared:
        known = ', '.join(name for name in shared if name != 'step')
        raise UserError(f'Not all runs have the score {chosen!r}. Scores of all runs: {known}.')
    return Objective(chosen, runs.is_lower_better(chosen, checkpoint), note)


def summarize(
    sweep: Sequence[Trial], objective: Objective, failures: Mapping[pathlib.Path, str]
) -> dict[str, Any]:
    """Collect the scores of the finished runs.

    Args:
      sweep: the trials.
      objective: the score to compare.
      failures: reasons, by folder, of the runs that did not finish.

    Returns:
      A dictionary with three keys. `score` is the name of the score. `best` is the index of the trial with the best mean;
      None if there are no scores. `trials` has, for each trial:
      `settings`: the values of all keys that the sweep sets, for other keys than its own those of the config.
      `scores`: those of its seeds, None for a missing or non-finite score.
      `mean`, `std` (sample standard deviation), `median`, `n`: statistics of the finite scores.
      `failed`: number of runs that did not finish, or whose score is not finite.
      `degenerate`: number of runs that are not more accurate than always predicting the majority class.
    """
    found: list[dict[str, Any]] = []
    unfinished = find_unfinished([job for trial in sweep for job in trial.jobs])
    for trial, settings in zip(sweep, _complete_settings(sweep), strict=True):
        scores: list[float | None] = []
        failed = degenerate = 0
        for job in trial.jobs:
            is_finished = job.folder not in unfinished
            score = runs.final_score(job.folder, objective.score) if is_finished else None
            score = score if score is not None and math.isfinite(score) else None
            scores.append(score)
            failed += job.folder in failures or (is_finished and score is None)
            degenerate += is_finished and _is_degenerate(job.folder)
        valid = [s for s in scores if s is not None]
        found.append(
            {
                'settings': settings,
                'scores': scores,
                **runs.describe_values(valid),
                'failed': failed,
                'degenerate': degenerate,
            }
        )
    best = _ranking(found, objective.lower_is_better)[0]
    return {'score': objective.score, 'trials': found, 'best': None if found[best]['mean'] is None else best}


def _complete_settings(sweep: Sequence[Trial]) -> list[Settings]:
    """For each trial, the values of the keys that any trial sets; '' for a key that its task or model does not have."""
    keys = dict.fromkeys(key for trial in sweep for key in trial.settings)
    found = []
    for trial in sweep:
        settings = dict(trial.settings)
        if keys.keys() - settings:
            config: Any = experiment.read(trial.jobs[0].config, trial.jobs[0].settings).as_dict()
        found.append({key: settings[key] if key in settings else _lookup(config, key) for key in keys})
    return found


def _lookup(config: Any, key: str) -> Any:
    for part in key.split('.'):
        config = config.get(part, '') if isinstance(config, dict) else ''
    return config


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
    sweep: Sequence[Trial],
    summary: Mapping[str, Any],
    objective: Objective,
    failures: Mapping[pathlib.Path, str],
) -> list[list[str]]:
    """Tabulate a sweep, one line per trial: the best first, marked with a star; trials without scores last.

    Args:
      sweep: the trials.
      summary: their scores, as returned by `summarize`.
      objective: the score to compare.
      failures: reasons, by folder, of the runs that did not finish.
    """
    lines = [['', *summary['trials'][0]['settings'], objective.score, 'n', 'state', 'step']]
    for i in _ranking(summary['trials'], objective.lower_is_better):
        found = summary['trials'][i]
        score = runs.mean_and_spread([s for s in found['scores'] if s is not None])
        best = '*' if i == summary['best'] else ''
        values = map(str, found['settings'].values())
        lines.append([best, *values, score, str(found['n']), *_progress(sweep[i], found, failures)])
    return lines


def numbers(summary: Mapping[str, Any], objective: Objective) -> list[list[Any]]:
    """Tabulate the statistics of a sweep for a CSV file, one line per trial, the best first."""
    names = ('mean', 'std', 'median', 'n', 'failed', 'degenerate')
    lines: list[list[Any]] = [[*summary['trials'][0]['settings'], 'score', *names]]
    for i in _ranking(summary['trials'], objective.lower_is_better):
        found = summary['trials'][i]
        lines.append([*found['settings'].values(), objective.score, *(found[name] for name in names)])
    return lines


def _progress(
    trial: Trial, found: Mapping[str, Any], failures: Mapping[pathlib.Path, str]
) -> tuple[str, str]:
    """Summarize the runs of a trial: their states, such as '2 done, 1 running', and the lowest step among them.

    Args:
      trial: the trial.
      found: its scores, as returned by `summarize`.
      failures: reasons, by folder, of the runs that did not finish.
    """
    reasons = distinct_reasons(failures)
    unfinished = find_unfinished(trial.jobs)
    states, steps, totals = [], [], []
    for job, score in zip(trial.jobs, found['scores'], strict=True):
        state = 'not started'
        if job.folder in failures:
            state = f'failed [{reasons.index(failures[job.folder]) + 1}]'
        elif unfinished.get(job.folder):
            state = 'changed'
        elif (job.folder / 'config.json').is_file():
            state, step, total = status.state(runs.read(job.folder), job.folder, goodput.read(job.folder))
            steps.append(step)
            totals.append(total)
            if job.folder not in unfinished and score is None:
                state = 'no finite score'
            elif job.folder not in unfinished and _is_degenerate(job.folder):
                state = 'no better than the majority class'
        states.append(state)
    counts = collections.Counter(states)
    text = ', '.join(counts if len(counts) == 1 else (f'{n} {state}' for state, n in counts.items()))
    return text, status.format_step(min(steps), max(totals)) if steps else ''
