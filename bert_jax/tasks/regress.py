"""A number for a text or a pair of texts, such as their similarity (STS-B of Wang et al. 2019)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.metrics import mean
from bert_jax.data import labeled as data_lib
from bert_jax.data.labeled import LabelledConfig
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import ForClassification
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Result


@dataclasses.dataclass(frozen=True)
class Config:
    """Nothing to choose: the loss is the squared error."""

    name: str = 'regress'


class Task(Downstream):
    Data = LabelledConfig

    def __init__(self, config: Config, data: LabelledConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        numbers = data_lib.values(found, self.data) if labelled else [0] * len(found)
        return Examples(data_lib.rows(found, numbers, self.data, self.tokenizer))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        return {**row.inputs(), 'value': data_lib.value(row.label), 'row_weight': np.float32(1)}

    def module(self, model: Any, rngs: Rngs) -> ForClassification:
        return ForClassification(model, 1, rngs)

    def loss(self, model: ForClassification, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        predicted = model.scores(batch, key)[:, 0]
        error = jnp.square(predicted - batch['value'])
        return Result(
            {'squared_error': mean(error, batch['row_weight'])},
            {},
            {'predicted': predicted, 'value': batch['value']},
        )

    def flops(self, model: Any, batch: Batch) -> float:
        return model.read_flops(batch['valid'].sum(), batch['valid'].shape[1], len(batch['valid']))

    def predictions(self, outputs: dict[str, np.ndarray], about: Any) -> list[dict[str, Any]]:
        return [{'value': round(float(value), 6)} for value in outputs['predicted']]

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        """Correlations with the right numbers: Pearson's of values, Spearman's of ranks; 0 if all are equal."""
        from scipy import stats

        a, b = (outputs[k].astype(np.float64) for k in ('predicted', 'value'))
        flat = np.ptp(a) == 0 or np.ptp(b) == 0
        pearson, spearman = (
            0.0 if flat else float(f(a, b).statistic) for f in (stats.pearsonr, stats.spearmanr)
        )
        return {'pearson': pearson, 'spearman': spearman, 'correlation': (pearson + spearman) / 2}
