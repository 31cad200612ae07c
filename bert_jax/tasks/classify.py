"""Classification of a text or a pair of texts (Devlin et al. 2019, section 4.1)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import labeled
from bert_jax.data.labeled import LabeledConfig, LabelMap
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import ForClassification
from bert_jax.modeling.losses import cross_entropy
from bert_jax.tasks import Examples, Pooled, PooledConfig, TaskOutput


@dataclasses.dataclass(frozen=True)
class Config(PooledConfig):
    """Settings of classification.

    Attributes:
      labels: names of the classes, in the order of their ids; empty uses those of the data set.
    """

    name: str = 'classify'
    labels: tuple[str, ...] = ()


def class_output(logits: jax.Array, batch: Batch) -> TaskOutput:
    """Return the cross-entropy and the accuracy of logits [..., classes], with the logits and labels of each text."""
    weights, labels = batch['row_weight'], batch['label']
    return TaskOutput(
        {'cross_entropy': mean(cross_entropy(logits, labels), weights)},
        {'accuracy': mean(logits.argmax(-1) == labels, weights)},
        {'logits': logits, 'label': labels},
    )


class Task(Pooled):
    """Classification from the pooled vector of a text.

    Attributes:
      unit: what messages call the records.
    """

    Data = LabeledConfig
    unit = 'examples'

    def __init__(self, config: Config, data: LabeledConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        self.num_outputs = len(config.labels)
        if len(config.labels) < 2:
            raise UserError(f'task.labels={config.labels} has fewer than two classes. List two or more.')

    @staticmethod
    def complete_config(config: Config, data: LabeledConfig) -> Config:
        """Fill in the names of the classes from the data, unless they are set.

        Raises:
          UserError: if the training split has only one class.
        """
        if config.labels:
            return config
        labels = labeled.label_names(data)
        if len(labels) < 2:
            raise UserError(
                f'The training examples of {data.source} have only the class {labels[0]!r} in the field {data.label!r}. '
                'Add examples of another class, or set data.label to another field.'
            )
        return dataclasses.replace(config, labels=labels)

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        if with_labels:
            class_ids = labeled.class_ids(records, self.data, self.config.labels)
        else:
            class_ids = [0] * len(records)
        return Examples(labeled.make_rows(records, class_ids, self.data, self.tokenizer, self.unit))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        return {**row.inputs(), 'label': np.int32(row.label), 'row_weight': np.float32(1)}

    def loss(self, model: ForClassification, batch: Batch, key: jax.Array | None) -> TaskOutput:
        return class_output(model.class_logits(batch, key), batch)

    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        """Return the most likely class of each record, and the probabilities of all classes."""
        names = self.config.labels
        predictions = []
        for row in softmax(outputs['logits'], axis=1):
            best = int(row.argmax())
            probabilities = {name: round(float(p), 6) for name, p in zip(names, row, strict=True)}
            predictions.append(
                {
                    'prediction': names[best],
                    'probability': probabilities[names[best]],
                    'probabilities': probabilities,
                }
            )
        return predictions

    def gold(self, record: Record) -> str:
        label = record.get(self.data.label, 'data.label')
        return self.config.labels[self._label_map.class_id(label, record.location)]

    @functools.cached_property
    def _label_map(self) -> LabelMap:
        return LabelMap(self.data, self.config.labels)

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        """Compute F1, the Matthews correlation and the confusion matrix.

        Returns:
          `f1` of the second class, only if there are two classes; `f1_macro`, the mean F1 of the classes that occur in
          the labels or the predictions; `matthews`; `confusion`, counts with a row for each true class and a column
          for each predicted class; and `majority`, the share of the most frequent true class.
        """
        from sklearn import metrics

        true, predicted = outputs['label'], outputs['logits'].argmax(-1)
        classes = range(len(self.config.labels))
        scores: dict[str, Any] = {}
        if len(classes) == 2:
            scores['f1'] = float(metrics.f1_score(true, predicted, zero_division=0))
        is_constant = len({*true, *predicted}) == 1
        return scores | {
            'f1_macro': float(metrics.f1_score(true, predicted, average='macro', zero_division=0)),
            'matthews': 0.0 if is_constant else float(metrics.matthews_corrcoef(true, predicted)),
            'confusion': metrics.confusion_matrix(true, predicted, labels=classes).tolist(),
            'majority': float(np.bincount(true).max() / len(true)),
        }

    def format_scores(self, scores: dict[str, Any]) -> str:
        """Format the scores and the confusion matrix (rows: true classes, columns: predicted classes)."""
        labels: Sequence[str] = self.config.labels
        width = max(9, *(len(label) for label in labels))
        head = ' ' * width + '  ' + '  '.join(f'{label:>{width}}' for label in labels) + '  (predicted)'
        lines = [super().format_scores(scores), '', head]
        for label, counts in zip(labels, scores['confusion'], strict=True):
            lines.append(f'{label:>{width}}  ' + '  '.join(f'{n:>{width},}' for n in counts))
        return '\n'.join(lines)
