"""Causal and masked language modeling with one encoder (GPT-BERT, Charpentier & Samuel 2024, arXiv 2410.24159)."""

import copy
import dataclasses
import fractions
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import tasks
from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import Batch
from bert_jax.data.rows import unpack
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.tasks import TaskOutput, mlm, token_output

_MAX_GROUP = 16  # largest denominator of `causal_share`


@dataclasses.dataclass(frozen=True)
class Config(mlm.Config):
    """Settings of hybrid language modeling, in addition to those of masked language modeling.

    Attributes:
      causal_share: share of the rows of a batch that the encoder reads causally, to predict each next token. In the other
        rows it predicts masked tokens, each at the position before it, so that both objectives have the same output. The
        training loss is the sum of both mean losses. In `train.phases` the share can change: 1, then 0 is causal
        language modeling, then masked language modeling. Fractions are rounded to sixteenths at most.
    """

    name: str = 'hybrid'
    sentence_objective: Literal['random', 'swap', 'none'] = 'none'
    pack_documents: bool = True
    causal_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 'task', 0, 1, 'causal_share')
        if self.sentence_objective != 'none' or self.diffusion:
            raise UserError(
                "task.name='hybrid' needs task.sentence_objective=none and task.diffusion=false. Set them, or task.name=mlm."
            )

    @property
    def fraction(self) -> fractions.Fraction:
        """`causal_share` as a fraction: the number of causal rows in each group of consecutive rows, and its size."""
        return fractions.Fraction(self.causal_share).limit_denominator(_MAX_GROUP)


class Task(mlm.Task):
    """Causal and masked language modeling. Evaluations compute both losses on all rows."""

    config: Config
    mask_offset = 1
    splits_batch = True

    def for_evaluation(self) -> 'Task':
        task: Any = copy.copy(super().for_evaluation())
        task.splits_batch = False
        return task

    def example(self, packed: np.ndarray, rng: np.random.Generator, rate: float | None = None) -> Batch:
        original = unpack(packed).tokens % len(self.tokenizer)
        return {**super().example(packed, rng, rate), 'original': original}

    def loss(self, model: BertForPretraining, batch: Batch, key: jax.Array | None) -> TaskOutput:
        causal, masked = self._split(batch) if self.splits_batch else (batch, batch)
        parts = []
        if len(causal['tokens']):
            parts.append(self._causal_output(model, causal, key))
        if len(masked['tokens']):
            positions = jnp.maximum(masked['positions'] - self.mask_offset, 0)
            encoded = self.encode(model, masked, key, positions)
            masked_losses, correct = model.masked_loss(encoded.hidden_states[-1][:, 1:], masked['labels'])
            parts.append(token_output('mlm', masked_losses, correct, masked, self.corpora))
        losses = {name: mean for part in parts for name, mean in part.losses.items()}
        metrics = {name: mean for part in parts for name, mean in part.metrics.items()}
        return TaskOutput(losses, metrics, {})

    def _split(self, batch: Batch) -> tuple[Batch, Batch]:
        """Split a batch into the rows that are read causally and the others; each device keeps its rows.

        Raises:
          UserError: if the batch does not consist of whole groups of rows, see `Config.fraction`.
        """
        share, size = self.config.fraction, len(batch['tokens'])
        if size % share.denominator:
            raise UserError(
                f'task.causal_share={self.config.causal_share} divides groups of {share.denominator} rows, but a batch has '
                f'{size}. Set train.batch_size to a multiple of {share.denominator}.'
            )

        def select(rows: slice) -> Batch:
            groups = {k: x.reshape(-1, share.denominator, *x.shape[1:])[:, rows] for k, x in batch.items()}
            return {k: x.reshape(-1, *x.shape[2:]) for k, x in groups.items()}

        return select(slice(share.numerator)), select(slice(share.numerator, None))

    def _causal_output(self, model: BertForPretraining, batch: Batch, key: jax.Array | None) -> TaskOutput:
        """Predict each token of a document from those before it."""
        tokens, documents = batch['original'], batch['valid'].astype(jnp.int32)
        hidden = model.bert(tokens, None, batch['valid'], key, causal=True).hidden_states[-1]
        losses, correct = model.masked_loss(hidden[:, :-1], tokens[:, 1:])
        weights = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] > 0)
        return token_output(
            'lm', losses, correct, {**batch, 'weights': weights.astype(jnp.float32)}, self.corpora
        )

    def flops(self, model_config: Any, batch: Batch) -> float:
        share = self.config.causal_share
        tokens, length = tasks.attention_size(batch['valid'])
        head = tokens * 2 * model_config.token_width * (model_config.width + model_config.vocab_size)
        causal = model_config.block_flops(tokens, length / 2) + head
        return share * causal + (1 - share) * super().flops(model_config, batch)
