"""Converted encoder without a training objective, to inspect or to fine-tune."""

import dataclasses
from typing import Any

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.pipeline import Batch
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import Encoder
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Examples, TaskOutput

_NO_OBJECTIVE = (
    'task.name=encode has no objective, so it can be neither trained nor scored. Set task.name to another task, and '
    'init.checkpoint to this model.'
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a bare encoder.

    Attributes:
      pooler: whether the encoder has a pooler.
    """

    name: str = 'encode'
    pooler: bool = True


class Task:
    """Encoder that can be loaded but not trained."""

    Data = LabeledConfig

    def __init__(self, config: Config, data: LabeledConfig, tokenizer: Tokenizer):
        self.config = config

    def build_model(self, model_config: Any, rngs: Rngs) -> Encoder:
        return Encoder(model_config, rngs, self.config.pooler)

    def train_rows(self) -> np.ndarray:
        raise UserError(_NO_OBJECTIVE)

    def eval_examples(self) -> Examples:
        raise UserError(_NO_OBJECTIVE)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        raise UserError(_NO_OBJECTIVE)

    def loss(self, model: Encoder, batch: dict[str, jax.Array], key: jax.Array | None) -> TaskOutput:
        raise UserError(_NO_OBJECTIVE)

    def flops(self, model_config: Any, batch: Batch) -> float:
        raise UserError(_NO_OBJECTIVE)

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        raise UserError(_NO_OBJECTIVE)
