"""One class for a text or a pair of texts (Devlin et al. 2019, section 4.1)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import labeled as data_lib
from bert_jax.data.labeled import LabelledConfig
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import ForClassification
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Result


@dataclasses.dataclass(frozen=True)
class Config:
    """Classes of the task.

    Attributes:
      labels: their names, in the order of their numbers; empty takes those of the data set.
    """

    name: str = 'classify'
    labels: tuple[str, ...] = ()


class Task(Downstream):
    Data = LabelledConfig

    def __init__(self, config: Config, data: LabelledConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer
        if len(config.labels) < 2:
            raise UserError(
                f'A classification needs two classes or more, but task.labels is {config.labels}.'
            )

    @staticmethod
    def complete(config: Config, data: LabelledConfig) -> Config:
        """Fills in the names of the classes from the data."""
        return config if config.labels else dataclasses.replace(config, labels=data_lib.label_names(data))

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        names = self.config.labels
        numbers = data_lib.class_numbers(found, self.data, names) if labelled else [0] * len(found)
        return Examples(data_lib.rows(found, numbers, self.data, self.tokenizer))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        return {
            **row.inputs(),
            'label': np.int32(row.label),
            'row_weight': np.float32(1),
        }

    def module(self, model: Any, rngs: Rngs) -> ForClassification:
        return ForClassification(model, len(self.config.labels), rngs)

    def loss(self, model: ForClassification, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        logits = model.scores(batch, key)
        weight, labels = batch['row_weight'], batch['label']
        return Result(
            {'cross_entropy': mean(cross_entropy(logits, labels), weight)},
            {'accuracy': mean(logits.argmax(-1) == labels, weight)},
            {'logits': logits, 'label': labels},
        )

    def flops(self, model: Any, batch: Batch) -> float:
        return model.read_flops(batch['valid'].sum(), batch['valid'].shape[1], len(batch['valid']))

    def predictions(self, outputs: dict[str, np.ndarray], about: Any) -> list[dict[str, Any]]:
        """The likeliest class, its number, and the probability of each."""
        names = self.config.labels
        found = []
        for row in softmax(outputs['logits'], axis=1):
            best = int(row.argmax())
            probabilities = {name: round(float(p), 6) for name, p in zip(names, row, strict=True)}
            found.append({'label': names[best], 'number': best, 'probabilities': probabilities})
        return found

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        """Macro F1, of two classes F1 of the second, Matthews correlation, and the confusion matrix [true, predicted]."""
        from sklearn import metrics

        true, predicted = outputs['label'], outputs['logits'].argmax(-1)
        classes = range(len(self.config.labels))
        two = {'f1': float(metrics.f1_score(true, predicted, zero_division=0))} if len(classes) == 2 else {}
        return two | {
            'f1_macro': float(
                metrics.f1_score(true, predicted, labels=classes, average='macro', zero_division=0)
            ),
            'matthews': float(metrics.matthews_corrcoef(true, predicted))
            if len({*true, *predicted}) > 1
            else 0.0,
            'confusion': metrics.confusion_matrix(true, predicted, labels=classes).tolist(),
            'majority': float(np.bincount(true).max() / len(true)),
        }

    def describe(self, scores: dict[str, Any]) -> str:
        """A table of the scores with the confusion matrix, rows true and columns predicted."""
        labels: Sequence[str] = self.config.labels
        width = max(9, *(len(label) for label in labels))
        head = ' ' * width + '  ' + '  '.join(f'{label:>{width}}' for label in labels) + '  (predicted)'
        lines = [super().describe(scores), '', head]
        for label, counts in zip(labels, scores['confusion'], strict=True):
            lines.append(f'{label:>{width}}  ' + '  '.join(f'{n:>{width},}' for n in counts))
        return '\n'.join(lines)
