"""Training objectives, one file each: `tasks/NAME.py` defines the task that a config calls `NAME`.

To add an objective, write a file with two classes:

* `Config`, a frozen dataclass whose field `name` defaults to the file's name: the `task` section of a config.
* `Task`, which derives from the base class `Task` below. A pretraining task also has `row_maker`; a downstream task
  derives from `Downstream` and implements `make_examples` and `predictions`.

`clm.py` is the shortest pretraining task, `regress.py` the shortest downstream task.
"""

import abc
import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import Mean, mean
from bert_jax.data import text_checks
from bert_jax.data.pipeline import Batch, MakeExample
from bert_jax.data.records import Record
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import ForClassification
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


class Mistake(NamedTuple):
    """A prediction that differs from the gold label.

    Attributes:
      severity: number by which mistakes are sorted: the probability of the wrong prediction, or the size of the error.
      description: what was predicted instead of what.
    """

    severity: float
    description: str


class Task(abc.ABC):
    """Base class of training objectives, constructed as `Task(config, data, tokenizer)`.

    A task may also define these static methods:

    * `complete_config(config, data) -> Config` fills in settings that depend on the data, such as label names.
    * `check_text(config, data)` raises UserError if the settings do not suit the text of a pretraining task.
    * `num_extra_tokens(config, tokenizer) -> int` returns the number of vocabulary entries beyond the tokenizer's.

    A task with `Data = TextConfig` is a pretraining task. Its rows are prepared on disk by the `RowMaker` that
    `row_maker(length)` returns. All others derive from `Downstream`, except `encode`, which has no objective.

    Attributes:
      Data: dataclass of the config's `data` section.
      config: the config's `task` section.
      data: the config's `data` section.
      tokenizer: tokenizer of the model.
      models: names of the models that the task trains; empty for all.
      only_embeds_tokens: whether `loss` uses `batch['tokens']` only to look up token embeddings, so that the gradient of all
        other rows of the embedding is zero, see `train.embedding_rows`.
    """

    Data: type
    models: tuple[str, ...] = ()
    only_embeds_tokens: bool = False

    def __init__(self, config: Any, data: Any, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer

    @abc.abstractmethod
    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the NumPy arrays of one example.

        Args:
          packed: row or rows of integers, [..., 4 + T], see `data.rows`.
          rng: generator for the example's noise, seeded anew for each example.
        """

    def example_at(self, progress: float) -> MakeExample:
        """Return the function that makes the examples of a training batch; the default is `example` throughout.

        Args:
          progress: part of the run that is over before the step of the batch, from 0 to below 1.
        """
        return self.example

    def for_evaluation(self) -> 'Task':
        """Return the task whose examples evaluate a model; the default is this task."""
        return self

    @abc.abstractmethod
    def build_model(self, model_config: Any, rngs: Rngs) -> Module:
        """Return the model with the head that this task trains."""

    def architectures(self, model_config: Any) -> Sequence[Any]:
        """Return the settings of all models that a step runs; the default is the one of the `model` section."""
        return (model_config,)

    @abc.abstractmethod
    def loss(self, model: Any, batch: Batch, key: jax.Array | None) -> TaskOutput:
        """Compute losses, metrics and outputs of a batch.

        Args:
          model: what `build_model` returned.
          batch: stacked examples; `row_weight` is 0 for rows that only pad the batch.
          key: random key for dropout; None turns dropout off, for evaluation.
        """

    @abc.abstractmethod
    def flops(self, model_config: Any, batch: Batch) -> float:
        """Return the floating-point operations of a forward pass over the batch's real tokens."""

    def count_tokens(self, batch: Batch) -> float:
        """Return the number of tokens of a batch that the model reads, without padding. The default counts `valid`."""
        return float(np.count_nonzero(batch['valid']))

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        """Compute scores in addition to the metrics, from the outputs for all evaluation rows.

        The default returns an empty dict.

        Args:
          outputs: the `outputs` of `loss`, in the order of the rows.
          metadata: `metadata` of the evaluated `Examples`.
        """
        return {}


class Downstream(Task):
    """Base class of downstream tasks, whose rows are made in memory from labeled records.

    A task that generates text also defines `generate(model, batch) -> outputs`. It runs in evaluation commands and
    for predictions, not during training.

    Attributes:
      freezes_encoder: whether only the head is trained.
      supports_packing: whether `loss` reads packed rows (see `data.packing.pack_row`), in which `row_weight` and the
        outputs have two leading dimensions: rows, and texts of a row. A task may decide by its config.
    """

    freezes_encoder: bool = False
    supports_packing: bool = False

    @abc.abstractmethod
    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        """Convert records to rows.

        Args:
          records: the records to convert, in order.
          with_labels: whether to read labels; rows without labels can be predicted but not scored.
        """

    @abc.abstractmethod
    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        """Return one JSON-serializable dict for each record. The arguments are those of `Task.scores`.

        The key `prediction` holds the predicted label, number or text. `probability` is its probability, if the model
        assigns one, and `probabilities` has those of all classes. Further keys are allowed.
        """

    @abc.abstractmethod
    def gold(self, record: Record) -> Any:
        """Return the gold label of a record, in the form of a prediction.

        Raises:
          UserError: if the record has no label, or an invalid one.
        """

    def mistake(self, gold: Any, prediction: dict[str, Any]) -> Mistake | None:
        """Compare a prediction with the label that `gold` returned; return None if it is correct."""
        predicted, probability = prediction['prediction'], prediction['probability']
        if predicted == gold:
            return None
        return Mistake(probability, f'{predicted} instead of {gold} ({probability:.1%})')

    def text_lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of tokens of each example, [n], or [n, 2] if it has a target, whose tokens are counted apart.

        The default reads the header of its first row.
        """
        return rows.reshape(len(rows), -1)[:, 0].astype(np.int64)

    def flops(self, model_config: Any, batch: Batch) -> float:
        return model_config.encode_flops(*attention_size(batch['valid']))

    def train_rows(self) -> Any:
        """Return the rows of the training split.

        Raises:
          UserError: if the data cannot be read, or training and evaluation would use the same examples.
        """
        self.data.check_splits()
        return self.make_labeled_examples(self.data.read(self.data.train_split, self.data.limit)).rows

    def eval_examples(self) -> Examples:
        """Return the rows of the evaluation split."""
        return self.make_labeled_examples(self.data.read(self.data.eval_split))

    def make_labeled_examples(self, records: Sequence[Record]) -> Examples:
        """Convert labeled records to rows, and warn of empty texts; raises UserError if all are empty."""
        examples = self.make_examples(records)
        text_checks.check_not_empty(records, self.data)
        return examples

    def format_scores(self, scores: dict[str, Any]) -> str:
        """Format scores and counts as a plain-text table."""
        formats = {float: '.4f', int: ','}
        cells = {name: f'{v:{formats[type(v)]}}' for name, v in scores.items() if type(v) in formats}
        width = max(map(len, cells))
        return '\n'.join(f'{name:>{width}}  {cell}' for name, cell in cells.items())


@dataclasses.dataclass(frozen=True)
class PooledConfig:
    """Settings of downstream tasks that predict from the pooled vector of each row.

    Attributes:
      pooling: which vector of a row the model pools, see `model.pooling`; empty takes that of the model.
    """

    pooling: Literal['', 'cls', 'mean', 'late'] = ''


class Pooled(Downstream):
    """Base class of downstream tasks that predict from the pooled vector of each row.

    Attributes:
      num_outputs: number of logits of a row.
    """

    num_outputs: int = 1
    supports_packing = True
    only_embeds_tokens = True

    def build_model(self, model_config: Any, rngs: Rngs) -> ForClassification:
        return ForClassification(model_config, self.num_outputs, rngs)

    def flops(self, model_config: Any, batch: Batch) -> float:
        valid = batch['valid']
        num_texts = (batch['starts'] if 'starts' in batch else valid[..., 0]).size
        return model_config.encode_flops(*attention_size(valid), num_texts)


def attention_size(valid: np.ndarray) -> tuple[int, float]:
    """Return the number of real tokens in a batch, and the mean number of tokens to which each attends.

    Args:
      valid: booleans [..., T], or the numbers of the texts in packed rows.
    """
    tokens = int(np.count_nonzero(valid))
    texts = valid.reshape(-1, valid.shape[-1]).astype(np.int64)
    rows = np.arange(len(texts))[:, None] * (texts.max() + 1)
    counts = np.bincount((rows + texts)[texts > 0])
    return tokens, float((counts**2).sum() / max(1, tokens))


# Fields of a task's `Config` that belong to a trained model. An evaluation takes them from the checkpoint.
CHECKPOINT_FIELDS = (
    'labels',
    'decoder_only',
    'alphabet',
    'kmer',
    'stride',
    'mapping_seed',
    'pooling',
    'output_width',
    'output_activation',
)


def token_output(
    name: str, losses: jax.Array, correct: jax.Array, batch: Batch, corpora: Sequence[str] = ()
) -> TaskOutput:
    """Average the loss and the accuracy over the predicted tokens of a batch.

    Args:
      name: name of the objective.
      losses: [B, P] loss of each token.
      correct: [B, P] booleans, whether the prediction of each token is correct.
      batch: batch with `weights` [B, P], which are 0 for tokens that are not predicted, and the `corpus` of each row.
      corpora: names of the corpora.

    Returns:
      The loss NAME_loss, and the metrics NAME_accuracy and, for each corpus, NAME_loss/CORPUS.
    """
    weights = batch['weights'] * row_weight(batch)[:, None]
    metrics = {f'{name}_accuracy': mean(correct, weights)}
    for i, corpus in enumerate(corpora):
        is_from_corpus = (batch['corpus'] == i)[:, None].astype(weights.dtype)
        metrics[f'{name}_loss/{corpus}'] = mean(losses, weights * is_from_corpus)
    return TaskOutput({f'{name}_loss': mean(losses, weights)}, metrics, {})


def row_weight(batch: Batch) -> jax.Array:
    """Return the weight of each row, [B]; that of a packed row is 0 if none of its texts counts."""
    weight = batch['row_weight']
    return weight.max(1) if 'starts' in batch else weight


def shorten(text: str, max_length: int = 200) -> str:
    """Put a text on one line; if it is longer than `max_length` characters, cut it there and add ' ...'."""
    text = ' '.join(text.split())
    return text if len(text) <= max_length else text[:max_length] + ' ...'


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
