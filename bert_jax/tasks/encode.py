"""No objective: the bare encoder of a converted checkpoint, to look into or to fine-tune from."""

import dataclasses
from typing import Any

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabelledConfig
from bert_jax.data.pipeline import Batch
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import Encoder
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Examples, Result

_NOTHING = (
    'The task encode has no objective: set task.name to one that has, and init.checkpoint to this model.'
)


@dataclasses.dataclass(frozen=True)
class Config:
    """A bare encoder.

    Attributes:
      pooler: whether it has one.
    """

    name: str = 'encode'
    pooler: bool = True


class Task:
    Data = LabelledConfig

    def __init__(self, config: Config, data: LabelledConfig, tokenizer: Tokenizer):
        self.config = config

    def module(self, model: Any, rngs: Rngs) -> Encoder:
        return Encoder(model, rngs, self.config.pooler)

    def train_rows(self) -> np.ndarray:
        raise UserError(_NOTHING)

    def eval_examples(self) -> Examples:
        raise UserError(_NOTHING)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        raise UserError(_NOTHING)

    def loss(self, model: Encoder, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        raise UserError(_NOTHING)

    def flops(self, model: Any, batch: Batch) -> float:
        raise UserError(_NOTHING)

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        raise UserError(_NOTHING)
