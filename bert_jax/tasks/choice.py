"""One of several endings: each is scored beside the text, and the scores compete (Devlin et al. 2019, section 4.4)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from bert_jax.core.metrics import mean
from bert_jax.data import multiple_choice
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.pipeline import Batch, stack
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import ForClassification
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Result


@dataclasses.dataclass(frozen=True)
class Config:
    """Nothing to choose."""

    name: str = 'choice'


class Task(Downstream):
    Data = ChoiceConfig

    def __init__(self, config: Config, data: ChoiceConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        return Examples(multiple_choice.rows(found, self.data, self.tokenizer, labelled))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Arrays of [K, T], one row for each ending."""
        endings = [unpack(row) for row in packed]
        inputs = stack([row.inputs() for row in endings])
        return {**inputs, 'label': np.int32(endings[0].label), 'row_weight': np.float32(1)}

    def module(self, model: Any, rngs: Rngs) -> ForClassification:
        return ForClassification(model, 1, rngs)

    def loss(self, model: ForClassification, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        n, k, length = batch['tokens'].shape
        flat = {name: batch[name].reshape(n * k, length) for name in ('tokens', 'segments', 'valid')}
        logits = model.scores(flat, key).reshape(n, k)
        weight, labels = batch['row_weight'], batch['label']
        return Result(
            {'cross_entropy': mean(cross_entropy(logits, labels), weight)},
            {'accuracy': mean(logits.argmax(-1) == labels, weight)},
            {'logits': logits, 'label': labels},
        )

    def flops(self, model: Any, batch: Batch) -> float:
        valid = batch['valid']
        return model.read_flops(valid.sum(), valid.shape[2], valid.shape[0] * valid.shape[1])

    def predictions(self, outputs: dict[str, np.ndarray], about: Any) -> list[dict[str, Any]]:
        """The number of the likeliest ending, and the probability of each."""
        return [
            {'label': int(row.argmax()), 'probabilities': [round(float(p), 6) for p in row]}
            for row in softmax(outputs['logits'], axis=1)
        ]

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        """Beside the accuracy, the share of the most frequent right number."""
        return {'majority': float(np.bincount(outputs['label']).max() / len(outputs['label']))}
