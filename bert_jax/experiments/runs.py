"""Working directories of finished and running jobs, read back for tables and plots."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.core import metrics
from bert_jax.core.errors import UserError
from bert_jax.train import experiment


@dataclasses.dataclass(frozen=True)
class Run:
    """A working directory.

    Attributes:
      name: of the directory.
      config: its config.
      train: lines of metrics of training steps, in order.
      evals: lines of metrics of evaluations, in order, names without 'eval/'.
      scored: what eval binaries wrote into it: source and split, with the scores.
    """

    name: str
    config: Mapping[str, Any]
    train: list[dict[str, float]]
    evals: list[dict[str, float]]
    scored: Sequence[tuple[str, Mapping[str, Any]]] = ()

    @property
    def pretraining(self) -> bool:
        return 'sources' in self.config['data']

    @property
    def start(self) -> str:
        """What a fine-tuning began from."""
        init = self.config['init']
        return {
            'pretrained': 'pretrained weights',
            'body': 'pretrained weights but for words',
            'random': 'random weights',
        }[init['weights'] if init['checkpoint'] else 'random']

    @property
    def data(self) -> str:
        """What it was trained on."""
        data = self.config['data']
        if self.pretraining:
            names = [
                pathlib.Path(s).name if s.endswith(('.txt', '.gz', '.jsonl')) else s for s in data['sources']
            ]
            return ', '.join(names)
        return data['source'] + (f', {data["limit"]:,} examples' if data['limit'] else '')

    @property
    def score(self) -> str:
        """The name of the score that its checkpoints are judged by."""
        return self.config['checkpoint']['best'] or 'accuracy'

    @property
    def but_for_the_seed(self) -> str:
        """Equal for runs that are repetitions of one another."""
        config = experiment.with_defaults(self.config)
        return json.dumps({**config, 'train': {**config['train'], 'seed': None}}, sort_keys=True)


def read(workdir: pathlib.Path, name: str = '') -> Run:
    """Reads the config and metrics of a run.

    Raises:
      UserError: if the directory holds no run.
    """
    try:
        config = json.loads((workdir / 'config.json').read_text())
    except (OSError, ValueError) as e:
        raise UserError(
            f'{str(workdir)!r} holds no run (no readable config.json): give a --workdir that was trained.'
        ) from e
    sections = ('data', 'model', 'train', 'init', 'checkpoint')
    if not isinstance(config, dict) or not all(isinstance(config.get(s), dict) for s in sections):
        raise UserError(
            f'{str(workdir)!r} has a config.json of something else: give a --workdir that was trained.'
        )
    lines = metrics.read(workdir) if (workdir / 'metrics.jsonl').exists() else []  # it may just have begun
    train = [line for line in lines if {'loss', 'tokens_per_second', 'mfu'} <= line.keys()]
    evals = [{k.removeprefix('eval/'): v for k, v in line.items()} for line in lines if 'eval/loss' in line]
    return Run(name or workdir.name, config, train, evals, _scored(workdir))


def last_scores(place: pathlib.Path) -> dict[str, float]:
    """The scores at the end of a run; empty if it has none."""
    try:
        evals = read(place).evals
    except UserError:
        return {}
    return dict(evals[-1]) if evals else {}


def score(place: pathlib.Path, name: str) -> float | None:
    """The score at the end of a run, or of an evaluation of one; None if it has no scores at all."""
    scores = last_scores(place) or next((dict(found) for _, found in _scored(place)), {})
    if scores and name not in scores:
        known = ', '.join(k for k in scores if k != 'step')
        raise UserError(f'The runs have no score {name!r}: known are {known}.')
    return scores.get(name)


def curve(place: pathlib.Path, name: str) -> dict[int, float]:
    """A score of a run by the steps at which it was evaluated."""
    return {int(line['step']): line[name] for line in read(place).evals if name in line}


def find(folder: pathlib.Path) -> list[Run]:
    """The run of a working directory, or all runs below a folder such as `bin/repeat` makes.

    Raises:
      UserError: if there is none.
    """
    if (folder / 'config.json').exists() or not folder.is_dir():
        return [read(folder)]
    found = sorted(p.parent for p in folder.rglob('config.json'))
    if not found:
        raise UserError(f'There is no run in {str(folder)!r}: give a --workdir that was trained.')
    return [read(p, _short(f'{folder.name}/{p.relative_to(folder).as_posix()}')) for p in found]


def _short(name: str) -> str:
    """The name of a repetition without the folder that only says so."""
    return re.sub(r'/runs(?=/seed\d+$)', '', name)


def _scored(workdir: pathlib.Path) -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for file in sorted(workdir.glob('*.json')):
        try:
            made = json.loads(file.read_text(encoding='utf-8'))
            found.append((f'{made["source"]}, {made["split"]}', made['scores']))
        except (ValueError, KeyError, TypeError):  # another file
            continue
    return found
