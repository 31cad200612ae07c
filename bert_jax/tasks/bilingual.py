"""Masked LM of a language and of its double, in which every token has an exact translation; see `data.fake_language`."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.fake_language import disguise
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import HEADER, unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import mlm

LANGUAGES = ('real', 'fake')


@dataclasses.dataclass(frozen=True)
class Config(mlm.Config):
    """The objective, and what the two languages have in common (Dufter & Schütze 2020, section 2).

    Attributes:
      special: whether both write the same [CLS], [SEP], [MASK] and [UNK].
      positions: whether both have the same position vectors; 'own' takes the second half of twice as many.
      order: whether the words of the fake language stand in the order of the real one.
      paired: whether each row is read in either language, now this, now that; otherwise half of the rows are
        read in the one and the other half in the other, so that no sentence is known in both.
    """

    name: str = 'bilingual'
    special: Literal['shared', 'own'] = 'shared'
    positions: Literal['shared', 'own'] = 'shared'
    order: Literal['same', 'inverted'] = 'same'
    paired: bool = True


class Task(mlm.Task):
    config: Config

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        self.corpora = LANGUAGES
        self.disguise = disguise(tokenizer, config.special == 'shared', config.order == 'inverted')

    @staticmethod
    def extra_tokens(config: Config, tokenizer: Tokenizer) -> int:
        """Entries of the vocabulary beyond the tokenizer's."""
        return len(tokenizer)

    def module(self, model: Any, rngs: Rngs) -> BertForPretraining:
        if self.config.positions == 'own' and (model.rotary or model.relative):
            raise UserError(
                'task.positions=own is about learned positions: set model.rotary=0 and model.relative=0.'
            )
        return super().module(model, rngs)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        words = packed[HEADER:]
        fake = bool(rng.integers(2)) if self.config.paired else bool(int(words.sum()) & 1)
        return self.in_language(packed, rng, fake)

    def in_language(self, packed: np.ndarray, rng: np.random.Generator, fake: bool) -> Batch:
        """The example of a row in the one language or the other; the same noise in both."""
        row = unpack(packed)
        if fake:
            packed = np.concatenate([packed[:HEADER], packed[HEADER:][self.disguise.order(row)]])
        batch = super().example(packed, rng) | {'source': np.int32(fake)}
        if fake:
            batch |= {k: self.disguise.ids(batch[k]).astype(np.int32) for k in ('tokens', 'labels')}
        return batch

    def placed(self, model: BertForPretraining, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        if self.config.positions == 'shared':
            return {}
        length = batch['tokens'].shape[1]
        if model.bert.config.positions < 2 * length:
            raise UserError(
                f'task.positions=own needs twice as many positions as a row: set model.positions={2 * length}.'
            )
        first = batch['source'] * (model.bert.config.positions // 2)
        return {'positions': first[:, None] + jnp.arange(length)}
