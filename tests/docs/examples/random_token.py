"""Random-token detection: find the tokens that were replaced (Yamaguchi et al. 2021, section 3, "Random Token")."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import tasks
from bert_jax.core.config import check_range
from bert_jax.core.metrics import mean
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import SegmentRows, unpack
from bert_jax.modeling.heads import ForTokenClassification
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import TaskOutput


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of random-token detection.

    Attributes:
      replace_rate: share of the tokens that is replaced by a random token.
    """

    name: str = 'random_token'
    replace_rate: float = 0.15

    def __post_init__(self) -> None:
        check_range(self, 'task', 0, 1, 'replace_rate')


class Task(tasks.Task):
    """Replaces tokens at random, and classifies each token as original or replaced."""

    Data = TextConfig

    def row_maker(self, length: int) -> SegmentRows:
        """Pack one segment of consecutive sentences into each row."""
        return SegmentRows(length, sentence_objective='none')

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Replace tokens, but no special tokens; `labels` [T] are 1 where the token changed."""
        row = unpack(packed)
        ordinary = self.tokenizer.ordinary_ids
        is_chosen = np.isin(row.tokens, ordinary) & (rng.random(len(row.tokens)) < self.config.replace_rate)
        tokens = np.where(is_chosen, rng.choice(ordinary, len(row.tokens)), row.tokens).astype(np.int32)
        return {
            **row.inputs(),
            'tokens': tokens,
            'labels': (tokens != row.tokens).astype(np.int32),
            'row_weight': np.float32(1),
        }

    def build_model(self, model_config: Any, rngs: Rngs) -> ForTokenClassification:
        return ForTokenClassification(model_config, 2, rngs)

    def loss(self, model: ForTokenClassification, batch: Batch, key: jax.Array | None) -> TaskOutput:
        logits = model(batch['tokens'], batch['segments'], batch['valid'], key).logits
        weights = jnp.where(batch['valid'], batch['row_weight'][:, None], 0)
        predicted, labels = logits.argmax(-1), batch['labels']
        return TaskOutput(
            losses={'detection_loss': mean(cross_entropy(logits, labels), weights)},
            metrics={
                'accuracy': mean(predicted == labels, weights),
                'recall': mean(predicted == 1, jnp.where(labels == 1, weights, 0)),
            },
            outputs={},
        )

    def flops(self, model_config: Any, batch: Batch) -> float:
        return model_config.encode_flops(batch['valid'].sum(), batch['valid'].shape[1])
