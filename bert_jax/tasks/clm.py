"""Causal language model: predict each next token (Radford et al. 2018, section 3.1)."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from bert_jax.core.config import within
from bert_jax.core.metrics import mean
from bert_jax.data.causal_rows import JoinedRows, documents_of
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Result, of_each


@dataclasses.dataclass(frozen=True)
class Config:
    """The objective.

    Attributes:
      boundaries: whether a token sees its own document alone, of those that share a row; GPT-2 and GPT-3 see all.
      chunk: the loss is computed of so many positions of each row at a time, which saves memory; 0 is all at once.
    """

    name: str = 'clm'
    boundaries: bool = False
    chunk: int = 0

    def __post_init__(self) -> None:
        within(self, 'task', 0, math.inf, 'chunk')


class Task:
    Data = TextConfig

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer

    def row_maker(self, length: int) -> JoinedRows:
        """How `prepare` turns documents into rows."""
        return JoinedRows(length)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        documents = documents_of(row.tokens, row.length, self.tokenizer.sep)
        # What begins a document is not to be guessed from the one before it, if that is not seen.
        known = documents[1:] > 0
        if self.config.boundaries:
            known &= documents[1:] == documents[:-1]
        return {
            'tokens': row.tokens,
            'valid': documents if self.config.boundaries else documents > 0,
            'weights': known.astype(np.float32),
            'source': np.int32(row.source),
            'row_weight': np.float32(1),
        }

    def module(self, model: Any, rngs: Rngs) -> GptForCausalLM:
        return GptForCausalLM(model, rngs)

    def loss(self, model: GptForCausalLM, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        hidden = model.gpt(batch['tokens'], None, batch['valid'], key).hidden_states[-1]
        weights = batch['weights'] * batch['row_weight'][:, None]
        losses, correct = model.token_loss(hidden[:, :-1], batch['tokens'][:, 1:], self.config.chunk)
        metrics = {'lm_accuracy': mean(correct, weights)}
        metrics |= of_each(self.data.names, 'lm_loss', losses, weights, batch)
        return Result({'lm_loss': mean(losses, weights)}, metrics, {})

    def flops(self, model: Any, batch: Batch) -> float:
        head = batch['weights'].sum() * 2 * model.width * model.vocab_size
        return model.block_flops(np.count_nonzero(batch['valid']), batch['valid'].shape[1]) + head

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        return {}
