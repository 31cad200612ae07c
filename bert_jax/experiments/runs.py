"""Read configs and metrics from the working directories of finished and running jobs."""

import dataclasses
import functools
import itertools
import json
import logging
import math
import operator
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core import goodput, metrics, paths
from bert_jax.core.errors import UserError
from bert_jax.data import formats, records
from bert_jax.train import experiment, record

_EARLIER = '.earlier'  # followed by a number, the end of the name of a folder with an earlier result
# Settings of the data that say which texts and labels of a source are read, such as the language.
_FIELDS = (
    'text',
    'text_pair',
    'target',
    'context',
    'question',
    'answers',
    'tokens',
    'endings',
    'label',
    'fake_language',
    'kind',
    'template',
    'num_shots',
)


@dataclasses.dataclass(frozen=True)
class EvalFile:
    """Scores that an eval command or a study wrote into a working directory.

    Attributes:
      source, split: evaluated data.
      step: training step of the checkpoint; 0 for a study.
      config: settings of the data; empty for a study.
      scores: scores by name.
      fields: part of the name that tells apart data of one source, see `distinguish_data`.
    """

    source: str
    split: str
    step: int
    config: Mapping[str, Any]
    scores: Mapping[str, Any]
    fields: str = ''

    @property
    def name(self) -> str:
        """The name of the evaluated data, as shown in tables."""
        return ', '.join(filter(None, (records.describe_source(self.source, self.split), self.fields)))


@dataclasses.dataclass(frozen=True)
class Run:
    """Config and metrics of a training run.

    Attributes:
      name: name of its working directory.
      config: its complete config.
      train: metrics of the logged training steps, in order.
      evals: metrics of the evaluations, in order, without the prefix 'eval/' in their names.
      eval_files: scores that eval commands wrote into the working directory.
      fields: part of `data_name` that tells apart data of one source, see `distinguish_data`.
      record: what the run was made from, see `train.record`; empty if it is missing.
    """

    name: str
    config: Mapping[str, Any]
    train: list[dict[str, float]]
    evals: list[dict[str, float]]
    eval_files: Sequence[EvalFile] = ()
    fields: str = ''
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_pretraining(self) -> bool:
        return 'sources' in self.config['data']

    @property
    def initialization(self) -> str:
        """The kind of initial weights of a fine-tuning run, as shown in legends and tables."""
        init = self.config['init']
        return {
            'pretrained': 'pretrained weights',
            'reinit_embeddings': 'pretrained weights, re-initialized embeddings',
            'random': 'random weights',
        }[init['weights'] if init['checkpoint'] else 'random']

    @property
    def data_name(self) -> str:
        """The name of the training data, as shown in legends and tables."""
        data = self.config['data']
        if self.is_pretraining:
            return ', '.join(pathlib.Path(s).name if formats.is_path(s) else s for s in data['sources'])
        limit = f'{data["limit"]:,} examples' if data['limit'] else ''
        return ', '.join(filter(None, (data['source'], self.fields, limit)))

    @property
    def best_metric(self) -> str:
        """The metric that selects the best checkpoint."""
        return self.config['checkpoint'].get('best_metric') or 'accuracy'

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of `best_metric` is better."""
        return is_lower_better(self.best_metric, experiment.CheckpointConfig(**self.config['checkpoint']))

    @property
    def config_without_seed(self) -> str:
        """The config as JSON without the seed: equal for runs that differ only in their seed.

        The seed is `train.seed` and, if each seed has its own pretraining run, a folder such as `seed0` in
        `init.checkpoint`.
        """
        train, init = self.config['train'], self.config.get('init', {})
        folder = rf'(?<=/)seed{train["seed"]}(?=/|$)'
        checkpoint = re.sub(folder, 'seed*', init.get('checkpoint', ''))
        changes = {'train': {**train, 'seed': 0}, 'init': {**init, 'checkpoint': checkpoint}}
        return _with_defaults(json.dumps({**self.config, **changes}, sort_keys=True))


@functools.lru_cache(maxsize=4096)
def _with_defaults(config: str) -> str:
    """Add the defaults of newer settings to a config, JSON both before and after."""
    return json.dumps(experiment.add_defaults(json.loads(config)), sort_keys=True)


def read(workdir: pathlib.Path, name: str = '') -> Run:
    """Read the config and metrics of a run.

    Args:
      workdir: its working directory.
      name: name of the run; by default, the name of the directory.

    Raises:
      UserError: if the directory contains no run.
    """
    config = _read_config(workdir)
    if config is None:
        raise UserError(
            f'The config.json in {str(workdir)!r} was not written by bert_jax. Pass the --workdir of a training run.'
        )
    # A run that has just started has no metrics yet.
    lines = metrics.read(workdir) if (workdir / 'metrics.jsonl').exists() else []
    train = [line for line in lines if {'loss', 'tokens_per_second', 'mfu'} <= line.keys()]
    evals = [{k.removeprefix('eval/'): v for k, v in line.items()} for line in lines if 'eval/loss' in line]
    files = _read_eval_files(workdir)
    return Run(name or workdir.name, config, train, evals, files, record=record.read(workdir))


def _read_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read the config of a run; None if the file is that of another program.

    Raises:
      UserError: if there is no readable config.
    """
    try:
        config = paths.read_json(workdir / 'config.json')
    except (OSError, ValueError) as e:
        raise UserError(
            f'{str(workdir)!r} contains no run (no readable config.json). Pass the --workdir of a training run.'
        ) from e
    sections = ('data', 'model', 'train', 'init', 'checkpoint')
    is_run = isinstance(config, dict) and all(isinstance(config.get(s), dict) for s in sections)
    return config if is_run else None


def distinguish_data(found: Sequence[Run]) -> list[Run]:
    """Add to the names of labeled data the settings in which data of the same source differ, such as the language.

    Args:
      found: all runs that are compared.

    Returns:
      The runs in the same order. Their `fields`, and those of their `eval_files`, are set.
    """
    configs: dict[str, list[Mapping[str, Any]]] = {}
    for run in found:
        if not run.is_pretraining:
            configs.setdefault(run.config['data']['source'], []).append(run.config['data'])
        for file in run.eval_files:
            configs.setdefault(file.source, []).append(file.config)
    keys = {source: _distinguishing_keys(configs[source]) for source in configs}

    def fields(source: str, config: Mapping[str, Any]) -> str:
        values = ((key, config.get(key)) for key in keys[source])
        return ', '.join(f'{k}={"+".join(v) if isinstance(v, list) else v}' for k, v in values if v)

    distinct = []
    for run in found:
        data = run.config['data']
        files = [dataclasses.replace(f, fields=fields(f.source, f.config)) for f in run.eval_files]
        own = '' if run.is_pretraining else fields(data['source'], data)
        distinct.append(dataclasses.replace(run, eval_files=files, fields=own))
    return distinct


def _distinguishing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose as few of `_FIELDS` as tell apart all configs that differ in any of them."""

    def num_distinct(keys: Sequence[str]) -> int:
        return len({json.dumps([config.get(key) for key in keys]) for config in configs})

    chosen: list[str] = []
    for key in _FIELDS:
        if num_distinct([*chosen, key]) > num_distinct(chosen):
            chosen.append(key)
    return chosen


def final_scores(folder: pathlib.Path) -> dict[str, float]:
    """All scores of the last evaluation of a run; empty if the run has not been evaluated."""
    try:
        evals = read(folder).evals
    except UserError:
        return {}
    return dict(evals[-1]) if evals else {}


def final_score(folder: pathlib.Path, name: str) -> float | None:
    """Read the score `name` from a folder: from the last evaluation of a run, or from the output of an eval command.

    The score 'training_minutes' is the time that the steps of a run took, without overhead and repeated steps.

    Returns:
      The score; None if the folder contains no scores.

    Raises:
      UserError: if the folder contains scores, but none of this name.
    """
    if name == 'training_minutes' and (starts := goodput.read(folder).get('starts')):
        return goodput.time_by_category(starts)['steps'] / 60
    scores = final_scores(folder) or next((dict(file.scores) for file in _read_eval_files(folder)), {})
    if scores and name not in scores:
        known = ', '.join(k for k in scores if k != 'step')
        raise UserError(f'The runs have no score {name!r}. Known scores: {known}.')
    return scores.get(name)


def is_lower_better(score: str, checkpoint: experiment.CheckpointConfig) -> bool:
    """Whether a lower value of `score` is better: by `best_mode` for the `best_metric` of the config, else by its name."""
    return checkpoint.lower_is_better if score == checkpoint.best_metric else metrics.is_lower_better(score)


def loss_terms(scores: Mapping[str, float]) -> tuple[str, ...]:
    """The scores of an evaluation whose sum is `loss`, such as mlm_loss and next_loss; empty if `loss` is not finite.

    An evaluation lists the terms directly after `loss`.
    """
    names = [name for name in scores if name not in ('step', 'loss')]
    for n, total in enumerate(itertools.accumulate(scores[name] for name in names), 1):
        if math.isclose(total, scores['loss'], rel_tol=1e-6):
            return tuple(names[:n])
    return ()


def score_curve(folder: pathlib.Path, name: str) -> dict[int, float]:
    """Map the training step of each evaluation of a run to the score `name`."""
    return {int(line['step']): line[name] for line in read(folder).evals if name in line}


def first_step(curve: Mapping[int, float], target: float, lower_is_better: bool) -> float:
    """The first step at which a score is as good as the target; infinity if it never is.

    Args:
      curve: scores by step.
      target: score to reach; nothing reaches NaN.
      lower_is_better: whether lower scores are better.
    """
    is_reached = operator.le if lower_is_better else operator.ge
    return next((float(step) for step, score in curve.items() if is_reached(score, target)), math.inf)


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """Format scores as 'mean ± sample standard deviation': without the deviation for one score, and '' for none."""
    if not values:
        return ''
    spread = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):.{digits}f}{spread}'


def describe_values(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, sample standard deviation, median and number of scores; None for a statistic that they do not have."""
    has_spread = len(values) > 1 and all(map(math.isfinite, values))
    return {
        'mean': statistics.fmean(values) if values else None,
        'std': statistics.stdev(values) if has_spread else None,
        'median': statistics.median(values) if values else None,
        'n': len(values),
    }


def is_earlier_result(path: pathlib.Path) -> bool:
    """Whether a path is in the folder of an earlier result, which `set_aside` has renamed."""
    return any(re.search(rf'{re.escape(_EARLIER)}\d+$', part) for part in path.parts)


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Rename a folder to `NAME.earlier1`, or to the next free number, and return its new path.

    Raises:
      UserError: if another process uses the folder.
    """
    if paths.is_workdir_locked(folder):
        raise UserError(f'Another process is using {str(folder)!r}. Wait until it ends.')
    candidates = (folder.with_name(f'{folder.name}{_EARLIER}{i}') for i in itertools.count(1))
    target = next(path for path in candidates if not path.exists())
    folder.rename(target)
    return target


def find_workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
    """Find the working directories below a folder, without earlier results and files of other programs."""
    found = []
    for workdir in sorted(file.parent for file in paths.find_files(folder, 'config.json')):
        if is_earlier_result(workdir.relative_to(folder)):
            continue
        try:
            if _read_config(workdir) is not None:
                found.append(workdir)
        except UserError:
            logging.warning('Skipped %s, which cannot be read', workdir / 'config.json')
    return found


def find(folder: pathlib.Path) -> list[Run]:
    """Read the run in a working directory, or all runs below a folder, such as the folder of a sweep.

    Raises:
      UserError: if there is no run.
    """
    is_workdir = (folder / 'config.json').exists() and _read_config(folder) is not None
    if is_workdir or not folder.is_dir():
        return [read(folder)]
    workdirs = find_workdirs(folder)
    if not workdirs:
        raise UserError(f'There is no run in {str(folder)!r}. Pass the --workdir of a training run.')
    names = [f'{folder.name}/{p.relative_to(folder).as_posix()}' for p in workdirs]
    return [read(p, name) for p, name in zip(workdirs, names, strict=True)]


def _read_eval_files(workdir: pathlib.Path) -> list[EvalFile]:
    found = []
    for file in sorted(workdir.glob('*.json')):
        try:
            content = paths.read_json(file)
            data = content['source'], content['split']
            details = content.get('step', 0), content.get('config', {})  # the files of studies have neither
            found.append(EvalFile(*data, *details, content['scores']))
        except (ValueError, KeyError, TypeError):  # not written by an eval command
            continue
    return found
