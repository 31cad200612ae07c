"""Multiple choice: score each ending after the text, and apply softmax over the endings (Devlin et al. 2019, section 4.4)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from bert_jax.data import multiple_choice
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.pipeline import Batch, stack
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.modeling.heads import ForClassification
from bert_jax.tasks import Examples, Pooled, PooledConfig, TaskOutput, classify


@dataclasses.dataclass(frozen=True)
class Config(PooledConfig):
    """Settings of multiple choice; there are no others."""

    name: str = 'choice'


class Task(Pooled):
    """Multiple choice, with one row for each ending of a text."""

    Data = ChoiceConfig

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        return Examples(multiple_choice.make_rows(records, self.data, self.tokenizer, with_labels))

    def text_lengths(self, rows: np.ndarray) -> np.ndarray:
        return rows[..., 0].sum(1, dtype=np.int64)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Unpack the rows of K endings, [K, 4 + T] (see `data.rows`), into arrays [K, T]."""
        endings = [unpack(row) for row in packed]
        inputs = stack([row.inputs() for row in endings])
        return {**inputs, 'label': np.int32(endings[0].label), 'row_weight': np.float32(1)}

    def loss(self, model: ForClassification, batch: Batch, key: jax.Array | None) -> TaskOutput:
        if 'starts' in batch:
            return classify.class_output(model.class_logits(batch, key)[..., 0], batch)
        n, k, length = batch['tokens'].shape
        flat = {name: batch[name].reshape(n * k, length) for name in ('tokens', 'segments', 'valid')}
        return classify.class_output(model.class_logits(flat, key).reshape(n, k), batch)

    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        """Return the index of the most likely ending of each record, and the probabilities of all its endings."""
        predictions = []
        for row in softmax(outputs['logits'], axis=1):
            probabilities = [round(float(p), 6) for p in row]
            best = int(row.argmax())
            predictions.append(
                {'prediction': best, 'probability': probabilities[best], 'probabilities': probabilities}
            )
        return predictions

    def gold(self, record: Record) -> int:
        return multiple_choice.read_label(record, self.data)

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        """Compute `majority`, the accuracy of always choosing the most frequent label. `loss` reports `accuracy`."""
        return {'majority': float(np.bincount(outputs['label']).max() / len(outputs['label']))}
