"""Regression: predict a number for a text or a pair of texts, such as their similarity (STS-B, Wang et al. 2019)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.metrics import mean
from bert_jax.data import labeled
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.modeling.heads import ForClassification
from bert_jax.tasks import Examples, Mistake, Pooled, PooledConfig, TaskOutput


@dataclasses.dataclass(frozen=True)
class Config(PooledConfig):
    """Settings of regression; there are no others."""

    name: str = 'regress'


class Task(Pooled):
    """Regression from the pooled vector of a row, trained with squared error."""

    Data = LabeledConfig

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        values = labeled.encode_floats(records, self.data) if with_labels else [0] * len(records)
        return Examples(labeled.make_rows(records, values, self.data, self.tokenizer))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        return {**row.inputs(), 'value': labeled.decode_float(row.label), 'row_weight': np.float32(1)}

    def loss(self, model: ForClassification, batch: Batch, key: jax.Array | None) -> TaskOutput:
        predicted, value = model.class_logits(batch, key)[..., 0], batch['value']
        error = mean(jnp.square(predicted - value), batch['row_weight'])
        return TaskOutput({'squared_error': error}, {}, {'predicted': predicted, 'value': value})

    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        return [{'prediction': round(float(value), 6)} for value in outputs['predicted']]

    def gold(self, record: Record) -> float:
        (bits,) = labeled.encode_floats([record], self.data)
        return float(labeled.decode_float(bits))

    def mistake(self, gold: float, prediction: dict[str, Any]) -> Mistake | None:
        error = abs(prediction['prediction'] - gold)
        return Mistake(error, f'{prediction["prediction"]:.4g} instead of {gold:.4g}') if error else None

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        """Compute Pearson's and Spearman's correlations and their mean, or 0 if all predictions or all true values are equal."""
        from scipy import stats

        predicted, true = (outputs[k].astype(np.float64) for k in ('predicted', 'value'))
        if np.ptp(predicted) == 0 or np.ptp(true) == 0:
            pearson = spearman = 0.0
        else:
            pearson = float(stats.pearsonr(predicted, true).statistic)
            spearman = float(stats.spearmanr(predicted, true).statistic)
        return {'pearson': pearson, 'spearman': spearman, 'correlation': (pearson + spearman) / 2}
