"""Causal language modeling: predict each next token (Radford et al. 2018, section 3.1)."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from bert_jax import tasks
from bert_jax.core.config import check_range
from bert_jax.data.causal_rows import JoinedRows, document_numbers
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import unpack
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import TaskOutput, token_output


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of causal language modeling.

    Attributes:
      document_masking: whether tokens attend only to tokens of their own document when several share a row, and their
        positions count from its start. GPT-2 and GPT-3 attend across documents.
      loss_chunk: number of positions per row whose vocabulary logits are computed at once. Small values save memory; 0
        computes all at once.
    """

    name: str = 'clm'
    document_masking: bool = False
    loss_chunk: int = 0

    def __post_init__(self) -> None:
        check_range(self, 'task', 0, math.inf, 'loss_chunk')


class Task(tasks.Task):
    """Causal language modeling on rows that are filled with consecutive documents, without padding."""

    Data = TextConfig
    models = ('gpt',)

    def row_maker(self, length: int) -> JoinedRows:
        """Return the function with which `prepare` packs documents into rows of `length` tokens."""
        return JoinedRows(length)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        documents = document_numbers(row.tokens, row.length, self.tokenizer.sep)
        predicted = documents[1:] > 0
        if self.config.document_masking:
            # The first token of a document has no context, since the document before it is masked.
            predicted &= documents[1:] == documents[:-1]
        return {
            'tokens': row.tokens,
            'valid': documents if self.config.document_masking else documents > 0,
            'weights': predicted.astype(np.float32),
            'corpus': np.int32(row.corpus),
            'row_weight': np.float32(1),
        }

    def build_model(self, model_config: Any, rngs: Rngs) -> GptForCausalLM:
        return GptForCausalLM(model_config, rngs)

    def loss(self, model: GptForCausalLM, batch: Batch, key: jax.Array | None) -> TaskOutput:
        hidden = model.gpt(batch['tokens'], None, batch['valid'], key).hidden_states[-1]
        losses, correct = model.token_loss(hidden[:, :-1], batch['tokens'][:, 1:], self.config.loss_chunk)
        return token_output('lm', losses, correct, batch, self.data.corpus_names)

    def flops(self, model_config: Any, batch: Batch) -> float:
        head = float(batch['weights'].sum()) * 2 * model_config.width * model_config.vocab_size
        return model_config.block_flops(*tasks.attention_size(batch['valid'])) + head
