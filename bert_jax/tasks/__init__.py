"""Floor 2: objectives, one file each. The file `tasks/NAME.py` is the task `NAME` of a config."""

import abc
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import Mean, mean
from bert_jax.data import records
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.modeling.module import Module, Rngs


class Result(NamedTuple):
    """What a task's `loss` returns.

    Attributes:
      terms: parts of the loss as sums and weights; the loss is the sum of their means.
      metrics: other means to log.
      outputs: arrays with a leading batch dimension, for scores.
    """

    terms: dict[str, Mean]
    metrics: dict[str, Mean]
    outputs: dict[str, jax.Array]


class Examples(NamedTuple):
    """Rows and what they were made from.

    Attributes:
      rows: integers, [..., 4 + T] each.
      about: what `scores` and `predictions` need to know beside the outputs.
    """

    rows: Any
    about: Any = None


class Task(Protocol):
    """What a file in this folder provides, as a class `Task(config, data, tokenizer)`.

    The file's `Config` is the dataclass of the config's `task` section; `Data` is that of its
    `data` section. If that is `prepare.TextConfig`, the rows are prepared on disk and the task has
    `row_maker(length) -> rows.RowMaker`; otherwise it is `Downstream`. It may have a static
    `complete(config, data)`, which fills in what only the data knows.
    """

    Data: type

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """One example from a row [4 + T], in numpy; `rng` is for what is random in it."""
        ...

    def module(self, model: Any, rngs: Rngs) -> Module:
        """The model with the head that this task needs."""
        ...

    def loss(self, model: Any, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        """Loss and outputs; `key` is the randomness of dropout, None evaluates."""
        ...

    def flops(self, model: Any, batch: dict[str, np.ndarray]) -> float:
        """Floating-point operations of a forward pass over the batch's real tokens."""
        ...

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        """Scores of all outputs of an evaluation, in numpy; `about` is that of its `Examples`."""
        ...


def of_each(
    corpora: Sequence[str], name: str, values: jax.Array, weights: jax.Array, batch: dict[str, jax.Array]
) -> dict[str, Mean]:
    """Means of `values` [B, T] over the rows of each corpus that has a name, as NAME/CORPUS."""
    return {
        f'{name}/{c}': mean(values, weights * (batch['source'] == i)[:, None].astype(weights.dtype))
        for i, c in enumerate(corpora)
    }


# Fields of a task's `Config` that belong to the model that was trained.
OF_A_CHECKPOINT = ('labels', 'prefix', 'alphabet', 'kmer', 'stride', 'table')


class Downstream(abc.ABC):
    """What downstream tasks share: rows in memory, made from records of labelled data.

    A task that writes has `written(model, batch) -> outputs` beside, for eval binaries and predictions. If its
    `Config` has a field of `OF_A_CHECKPOINT`, such as `labels`, the names of the classes, a checkpoint is scored with
    its own; `labels` also go out with converted weights.
    """

    data: Any
    frozen: bool = False  # whether the model below the head stays as it is

    @abc.abstractmethod
    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        """Rows of records; without labels they can be predicted, not scored."""

    @abc.abstractmethod
    def predictions(self, outputs: dict[str, np.ndarray], about: Any) -> list[dict[str, Any]]:
        """What a person wants to know of each record, ready for JSON."""

    def train_rows(self) -> Any:
        """Rows of the training split.

        Raises:
          UserError: among others if it would be the evaluation split too.
        """
        if records.is_files(self.data.source) and '{split}' not in self.data.source:
            raise UserError(
                f'data.source={self.data.source!r} would train and evaluate on the same examples: put {{split}} '
                'into the path, and name files after data.train_split and data.eval_split.'
            )
        return self.examples(records.read(self.data.source, self.data.train_split, self.data.limit)).rows

    def eval_examples(self) -> Examples:
        return self.examples(records.read(self.data.source, self.data.eval_split))

    def describe(self, scores: dict[str, Any]) -> str:
        """A table of the scores, for people."""
        shown = {k: f'{v:.4f}' for k, v in scores.items() if isinstance(v, float)}
        width = max(map(len, shown))
        return '\n'.join(f'{k:>{width}}  {v}' for k, v in shown.items())


def get(name: str) -> Any:
    """The module of a task.

    Raises:
      UserError: if there is no such file in this folder.
    """
    known = names()
    if name not in known:
        raise UserError(f'There is no task {name!r}: {nearest(name, known)}')
    return importlib.import_module(f'bert_jax.tasks.{name}')


def names() -> Sequence[str]:
    return [m.name for m in pkgutil.iter_modules(__path__)]
