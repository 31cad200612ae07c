"""Masked language modeling on a real language and a fake copy of it with other token ids (`data.fake_language`)."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.fake_language import FakeLanguage
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
    """Settings of `mlm`, and the choice of what the two languages share (Dufter & Schütze 2020, section 2).

    Attributes:
      special_tokens: 'shared' if both languages use the same [CLS], [SEP], [MASK] and [UNK], else 'separate'.
      position_embeddings: 'shared' if both languages use the same position embeddings. With 'separate', the fake
        language uses the second half of the table, so model.max_positions must be at least twice the row length.
      word_order: 'same' if the fake language keeps the order of the tokens, 'inverted' if it reverses the order within
        each segment.
      parallel_corpus: whether each row can appear in both languages. If true, the language of a row is drawn at random
        each time the row is read. If false, each row always has the same language, and each language has about half of
        the rows.
    """

    name: str = 'bilingual'
    special_tokens: Literal['shared', 'separate'] = 'shared'
    position_embeddings: Literal['shared', 'separate'] = 'shared'
    word_order: Literal['same', 'inverted'] = 'same'
    parallel_corpus: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pack_documents:
            raise UserError('task.name=bilingual does not support task.pack_documents=true. Set it to false.')


class Task(mlm.Task):
    """Masked language modeling with each example in either the real or the fake language."""

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        self.corpora = LANGUAGES
        self.fake_language = FakeLanguage(
            tokenizer, config.special_tokens == 'shared', config.word_order == 'inverted'
        )

    @staticmethod
    def num_extra_tokens(config: Config, tokenizer: Tokenizer) -> int:
        """Return the number of vocabulary entries beyond the tokenizer's: those of the fake language."""
        return len(tokenizer)

    def build_model(self, model_config: Any, rngs: Rngs) -> BertForPretraining:
        if self.config.position_embeddings == 'separate' and not model_config.has_position_table:
            raise UserError(
                'task.position_embeddings=separate needs learned position embeddings. Set model.rope_base=0 and '
                'model.relative_buckets=0.'
            )
        return super().build_model(model_config, rngs)

    def example(self, packed: np.ndarray, rng: np.random.Generator, rate: float | None = None) -> Batch:
        is_fake = rng.integers(2) if self.config.parallel_corpus else packed[HEADER:].sum() % 2
        return self.example_in_language(packed, rng, bool(is_fake), rate)

    def example_in_language(
        self, packed: np.ndarray, rng: np.random.Generator, is_fake: bool, rate: float | None = None
    ) -> Batch:
        """Make an example from a row, in the fake language if `is_fake`. The random choices are the same in both languages."""
        if is_fake:
            source_positions = self.fake_language.source_positions(unpack(packed))
            packed = np.concatenate([packed[:HEADER], packed[HEADER:][source_positions]])
        batch = super().example(packed, rng, rate) | {'corpus': np.int32(is_fake)}
        if is_fake:
            batch |= {k: self.fake_language.map_ids(batch[k]).astype(np.int32) for k in ('tokens', 'labels')}
        return batch

    def position_ids(self, model: BertForPretraining, batch: Batch) -> jax.Array | None:
        if self.config.position_embeddings == 'shared':
            return None
        length, table_size = batch['tokens'].shape[1], model.bert.config.max_positions
        if table_size < 2 * length:
            raise UserError(
                f'model.max_positions={table_size} is too small for rows of {length} tokens with '
                f'task.position_embeddings=separate. Set model.max_positions={2 * length}.'
            )
        first = batch['corpus'] * (table_size // 2)
        return first[:, None] + jnp.arange(length)
