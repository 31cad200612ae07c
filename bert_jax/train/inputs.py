"""What stands between a config and a loop: tokenizer, rows, and the checkpoint to begin from."""

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import prepare as prepare_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import Interleaved, Rows
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.tasks import Examples
from bert_jax.train import checkpoint
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import Experiment
from bert_jax.train.state import Layout

Initial = Callable[[Layout], dict[str, jax.Array]]


def begin(experiment: Experiment, workdir: pathlib.Path) -> tuple[Experiment, Tokenizer, Initial | None]:
    """Completes an experiment: its tokenizer, and what `init.checkpoint` gives.

    Returns:
      The experiment with nothing left open, the tokenizer, and a function that reads the
      parameters to begin from, or None.

    Raises:
      UserError: if checkpoint and tokenizer do not fit each other.
    """
    init = experiment.init
    if not init.checkpoint:
        if not experiment.tokenizer.path and not isinstance(experiment.data, TextConfig):
            raise UserError(
                'A downstream task needs a tokenizer: set init.checkpoint to a pretrained --workdir '
                '(with init.weights=random to start from scratch), or tokenizer.path.'
            )
        tokenizer = prepare_lib.get_tokenizer(
            experiment.data, experiment.tokenizer, rows_folder(experiment, workdir)
        )
        return experiment_lib.complete(experiment, tokenizer), tokenizer, None
    step, about = checkpoint.read_about(pathlib.Path(init.checkpoint))
    tokenizer = tokenizer_lib.from_json(json.dumps(about['tokenizer']))
    if experiment.tokenizer.path:
        given = tokenizer_lib.load(experiment.tokenizer.path)
        if given.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f'tokenizer.path has a vocabulary of {len(given)} that is not the one of the checkpoint '
                f'({len(tokenizer)} entries): leave tokenizer.path empty, a checkpoint brings its own.'
            )
    experiment = experiment_lib.inherit_model(experiment, about['config'])
    experiment = experiment_lib.complete(experiment, tokenizer)
    if init.weights == 'random':
        return experiment, tokenizer, None
    model = experiment.model.name
    drawn = (f'{model}/words',) if init.weights == 'body' else ()
    return experiment, tokenizer, functools.partial(_pretrained, step, model, drawn)


def _pretrained(step: pathlib.Path, model: str, drawn: Sequence[str], layout: Layout) -> dict[str, jax.Array]:
    """The parameters that checkpoint and model share but for those `drawn` anew, placed as the layout says.

    A head of other shapes, such as one for another number of classes, is drawn anew.
    """
    saved, wanted = checkpoint.param_shapes(step), layout.abstract.params
    other = [name for name in wanted if name in saved and saved[name].shape != wanted[name].shape]
    for name in other:
        if name.startswith(f'{model}/'):
            raise UserError(
                f'{name} has shape {saved[name].shape} in the checkpoint and {wanted[name].shape} in the model: '
                'do not override the architecture of a checkpoint.'
            )
    heads = {name.split('/')[0] for name in other}
    shared = [n for n in wanted if n in saved and n.split('/')[0] not in heads and n not in drawn]
    if not shared:
        raise UserError(f'No parameter of {str(step)!r} has a place in this model.')
    fresh = sorted({_module(name, model) for name in wanted if name not in shared})
    unused = sorted({_module(name, model) for name in saved if name not in shared})
    logging.info(
        '%d parameters from %s; new: %s; unused: %s',
        len(shared),
        step,
        ', '.join(fresh) or 'none',
        ', '.join(unused) or 'none',
    )
    whole = layout.shardings.step  # of what is read in vain: on each device, wherever it was saved
    both = {n: wanted[n] if n in shared else saved[n].update(sharding=whole) for n in saved}
    restored = checkpoint.read_params(step, both)
    return {name: restored[name] for name in shared}


def _module(name: str, model: str) -> str:
    """The head that a parameter belongs to, or the part of the model."""
    return '/'.join(name.split('/')[: 2 if name.startswith(f'{model}/') else 1])


def rows_folder(experiment: Experiment, workdir: pathlib.Path) -> pathlib.Path:
    """Where prepared rows and a trained tokenizer lie."""
    rows = getattr(experiment.data, 'rows', '')
    return pathlib.Path(rows) if rows else workdir / 'rows'


class RowsOf:
    """Training and validation rows of a task, prepared or read at first use."""

    def __init__(self, task: Any, experiment: Experiment, tokenizer: Tokenizer, workdir: pathlib.Path):
        self._task, self._data, self._tokenizer = task, experiment.data, tokenizer
        self._folder = rows_folder(experiment, workdir)
        self._prepares = isinstance(experiment.data, TextConfig)
        self.lengths = sorted({p[1] for p in experiment.train.phases}) or [experiment.data.length]

    @functools.cache  # noqa: B019
    def train(self, length: int) -> Sequence[np.ndarray]:
        if self._prepares:
            return Rows(self.prepare(length), 'train', self._data.exponent)
        return self._task.train_rows()

    @functools.cache  # noqa: B019
    def validation(self, length: int) -> Examples:
        if self._prepares:
            return Examples(Interleaved(Rows(self.prepare(length), 'validation')))
        return self._task.eval_examples()

    def prepare_all(self) -> None:
        """Prepares the rows of all lengths that are not there."""
        for length in self.lengths if self._prepares else ():
            self.prepare(length)

    def prepare(self, length: int, run: Any = None) -> pathlib.Path:
        """The folder of the rows of a length, prepared now if it is not there; `run` as of `prepare.prepare`."""
        folder = self._folder / f'length{length}'
        prepare_lib.prepare(self._data, self._task.row_maker(length), self._tokenizer, folder, run)
        return folder
