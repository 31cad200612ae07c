"""Converted encoder without a training objective, to inspect or to fine-tune."""

import dataclasses
from typing import Any, NoReturn

from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import Encoder
from bert_jax.modeling.module import Rngs


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
        self.config, self.tokenizer = config, tokenizer

    def build_model(self, model_config: Any, rngs: Rngs) -> Encoder:
        return Encoder(model_config, rngs, self.config.pooler)

    def train_rows(self) -> NoReturn:
        raise UserError(
            'task.name=encode has no objective, so it can be neither trained nor scored. Set task.name to another task, '
            'and init.checkpoint to this model.'
        )

    eval_examples = train_rows
