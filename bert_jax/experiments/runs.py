"""Read configs and metrics from the working directories of finished and running jobs."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core import metrics
from bert_jax.core.errors import UserError
from bert_jax.train import experiment


@dataclasses.dataclass(frozen=True)
class Run:
    """Config and metrics of a training run.

    Attributes:
      name: name of its working directory.
      config: its complete config.
      train: metrics of the logged training steps, in order.
      evals: metrics of the evaluations, in order, without the prefix 'eval/' in their names.
      eval_files: scores that eval commands wrote into the working directory, as pairs of a name 'SOURCE, SPLIT' and scores.
    """

    name: str
    config: Mapping[str, Any]
    train: list[dict[str, float]]
    evals: list[dict[str, float]]
    eval_files: Sequence[tuple[str, Mapping[str, Any]]] = ()

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
            suffixes = ('.txt', '.gz', '.jsonl')
            return ', '.join(pathlib.Path(s).name if s.endswith(suffixes) else s for s in data['sources'])
        return data['source'] + (f', {data["limit"]:,} examples' if data['limit'] else '')

    @property
    def best_metric(self) -> str:
        """The metric that selects the best checkpoint."""
        return self.config['checkpoint']['best_metric'] or 'accuracy'

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of `best_metric` is better."""
        settings = {**self.config['checkpoint'], 'best_metric': self.best_metric}
        return experiment.CheckpointConfig(**settings).lower_is_better

    @property
    def config_without_seed(self) -> str:
        """The config as JSON without `train.seed`: equal for runs that differ only in their seed."""
        config = experiment.add_defaults(self.config)
        return json.dumps({**config, 'train': {**config['train'], 'seed': None}}, sort_keys=True)


def read(workdir: pathlib.Path, name: str = '') -> Run:
    """Read the config and metrics of a run.

    Args:
      workdir: its working directory.
      name: name of the run; by default, the name of the directory.

    Raises:
      UserError: if the directory contains no run.
    """
    try:
        config = json.loads((workdir / 'config.json').read_text())
    except (OSError, ValueError) as e:
        raise UserError(
            f'{str(workdir)!r} contains no run (no readable config.json). Pass the --workdir of a training run.'
        ) from e
    sections = ('data', 'model', 'train', 'init', 'checkpoint')
    if not isinstance(config, dict) or not all(isinstance(config.get(s), dict) for s in sections):
        raise UserError(
            f'The config.json in {str(workdir)!r} was not written by bert_jax. Pass the --workdir of a training run.'
        )
    # A run that has just started has no metrics yet.
    lines = metrics.read(workdir) if (workdir / 'metrics.jsonl').exists() else []
    train = [line for line in lines if {'loss', 'tokens_per_second', 'mfu'} <= line.keys()]
    evals = [{k.removeprefix('eval/'): v for k, v in line.items()} for line in lines if 'eval/loss' in line]
    return Run(name or workdir.name, config, train, evals, _read_eval_files(workdir))


def final_scores(folder: pathlib.Path) -> dict[str, float]:
    """All scores of the last evaluation of a run; empty if the run has not been evaluated."""
    try:
        evals = read(folder).evals
    except UserError:
        return {}
    return dict(evals[-1]) if evals else {}


def final_score(folder: pathlib.Path, name: str) -> float | None:
    """Read the score `name` from a folder: from the last evaluation of a run, or from the output of an eval command.

    Returns:
      The score; None if the folder contains no scores.

    Raises:
      UserError: if the folder contains scores, but none of this name.
    """
    scores = final_scores(folder) or next((dict(found) for _, found in _read_eval_files(folder)), {})
    if scores and name not in scores:
        known = ', '.join(k for k in scores if k != 'step')
        raise UserError(f'The runs have no score {name!r}. Known scores: {known}.')
    return scores.get(name)


def score_curve(folder: pathlib.Path, name: str) -> dict[int, float]:
    """Map the training step of each evaluation of a run to the score `name`."""
    return {int(line['step']): line[name] for line in read(folder).evals if name in line}


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """Format scores as 'mean ± sample standard deviation': without the deviation for one score, and '' for none."""
    if not values:
        return ''
    spread = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):.{digits}f}{spread}'


def find(folder: pathlib.Path) -> list[Run]:
    """Read the run in a working directory, or all runs below a folder, such as the folder of a sweep.

    Raises:
      UserError: if there is no run.
    """
    if (folder / 'config.json').exists() or not folder.is_dir():
        return [read(folder)]
    workdirs = sorted(p.parent for p in folder.rglob('config.json'))
    if not workdirs:
        raise UserError(f'There is no run in {str(folder)!r}. Pass the --workdir of a training run.')
    names = [f'{folder.name}/{p.relative_to(folder).as_posix()}' for p in workdirs]
    # In a sweep with a single setting, the folder 'DIR/runs/seed0' is shortened to 'DIR/seed0'.
    return [read(p, re.sub(r'/runs(?=/seed\d+$)', '', name)) for p, name in zip(workdirs, names, strict=True)]


def _read_eval_files(workdir: pathlib.Path) -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for file in sorted(workdir.glob('*.json')):
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            found.append((f'{content["source"]}, {content["split"]}', content['scores']))
        except (ValueError, KeyError, TypeError):  # not written by an eval command
            continue
    return found
