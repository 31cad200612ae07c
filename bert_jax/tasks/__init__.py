"""Training objectives, one file each: `tasks/NAME.py` defines the task that a config calls `NAME`.

To add an objective, write a file with two classes:

* `Config`, a frozen dataclass whose field `name` defaults to the file's name: the `task` section of a config.
* `Task`, with the methods of the protocol `Task` below. A pretraining task also has `row_maker`; a downstream task
  derives from `Downstream` and implements `make_examples` and `predictions`.

`clm.py` is the shortest pretraining task, `regress.py` the shortest downstream task.
"""

import abc
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import Mean, mean
from bert_jax.data import records as records_lib
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.modeling.module import Module, Rngs


class TaskOutput(NamedTuple):
    """Output of a task's `loss`.

    Attributes:
      losses: terms of the loss, each a weighted sum and its weight; the training loss is the sum of their means.
      metrics: further means to log.
      outputs: arrays with a leading batch dimension, from which `scores` and `predictions` are computed.
    """

    losses: dict[str, Mean]
    metrics: dict[str, Mean]
    outputs: dict[str, jax.Array]


class Examples(NamedTuple):
    """Rows of a downstream task.

    Attributes:
      rows: integer arrays, each [..., 4 + T], see `data.rows`.
      metadata: facts about the records that `scores` and `predictions` need besides the model's outputs, such as
        reference texts; None if the outputs suffice.
    """

    rows: Any
    metadata: Any = None


class Task(Protocol):
    """Interface of a training objective, constructed as `Task(config, data, tokenizer)`.

    A task may also define these static methods:

    * `complete_config(config, data) -> Config` fills in settings that depend on the data, such as label names.
    * `num_extra_tokens(config, tokenizer) -> int` returns the number of vocabulary entries beyond the tokenizer's.

    A task with `Data = TextConfig` is a pretraining task. Its rows are prepared on disk by the `RowMaker` that
    `row_maker(length)` returns. All others derive from `Downstream`, except `encode`, which has no objective.

    Attributes:
      Data: dataclass of the config's `data` section.
    """

    Data: type

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the NumPy arrays of one example.

        Args:
          packed: row or rows of integers, [..., 4 + T], see `data.rows`.
          rng: generator for the example's noise, seeded anew for each example.
        """
        ...

    def build_model(self, model_config: Any, rngs: Rngs) -> Module:
        """Return the model with the head that this task trains."""
        ...

    def loss(self, model: Any, batch: dict[str, jax.Array], key: jax.Array | None) -> TaskOutput:
        """Compute losses, metrics and outputs of a batch.

        Args:
          model: what `build_model` returned.
          batch: stacked examples; `row_weight` is 0 for rows that only pad the batch.
          key: random key for dropout; None turns dropout off, for evaluation.
        """
        ...

    def flops(self, model_config: Any, batch: dict[str, np.ndarray]) -> float:
        """Return the floating-point operations of a forward pass over the batch's real tokens."""
        ...

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        """Compute scores from the outputs for all evaluation rows.

        Args:
          outputs: the `outputs` of `loss`, in the order of the rows.
          metadata: `metadata` of the evaluated `Examples`.
        """
        ...


class Downstream(abc.ABC):
    """Base class of downstream tasks, whose rows are made in memory from labeled records.

    A task that generates text also defines `generate(model, batch) -> outputs`. It runs in evaluation commands and
    for predictions, not during training.

    Attributes:
      data: the config's `data` section.
      freezes_encoder: whether only the head is trained.
    """

    data: Any
    freezes_encoder: bool = False

    @abc.abstractmethod
    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        """Convert records to rows.

        Args:
          records: the records to convert, in order.
          with_labels: whether to read labels; rows without labels can be predicted but not scored.
        """

    @abc.abstractmethod
    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        """Return one JSON-serializable prediction for each record; the arguments are those of `Task.scores`."""

    def train_rows(self) -> Any:
        """Return the rows of the training split.

        Raises:
          UserError: if the data cannot be read, or training and evaluation would use the same file.
        """
        if records_lib.is_files(self.data.source) and '{split}' not in self.data.source:
            raise UserError(
                f'data.source={self.data.source!r} would train and evaluate on the same examples. Put {{split}} '
                'into the path, and name the files after data.train_split and data.eval_split.'
            )
        records = records_lib.read(self.data.source, self.data.train_split, self.data.limit)
        return self.make_examples(records).rows

    def eval_examples(self) -> Examples:
        """Return the rows of the evaluation split."""
        return self.make_examples(records_lib.read(self.data.source, self.data.eval_split))

    def format_scores(self, scores: dict[str, Any]) -> str:
        """Format scores as a plain-text table."""
        cells = {name: f'{value:.4f}' for name, value in scores.items() if isinstance(value, float)}
        width = max(map(len, cells))
        return '\n'.join(f'{name:>{width}}  {cell}' for name, cell in cells.items())


# Fields of a task's `Config` that belong to a trained model. An evaluation takes them from the checkpoint.
CHECKPOINT_FIELDS = ('labels', 'decoder_only', 'alphabet', 'kmer', 'stride', 'mapping_seed')


def means_by_corpus(
    corpora: Sequence[str], name: str, values: jax.Array, weights: jax.Array, batch: dict[str, jax.Array]
) -> dict[str, Mean]:
    """Return the mean of `values` [B, T] over the rows of each named corpus, under the key NAME/CORPUS."""
    return {
        f'{name}/{corpus}': mean(values, weights * (batch['corpus'] == i)[:, None].astype(weights.dtype))
        for i, corpus in enumerate(corpora)
    }


def get(name: str) -> Any:
    """Import the module of a task.

    Raises:
      UserError: if no task has this name.
    """
    known = names()
    if name not in known:
        raise UserError(f'Unknown task {name!r}: {did_you_mean(name, known)}')
    return importlib.import_module(f'bert_jax.tasks.{name}')


def names() -> Sequence[str]:
    """List the names of all tasks."""
    return [m.name for m in pkgutil.iter_modules(__path__)]
