"""Masked language model with next-sentence prediction (Devlin et al. 2019, section 3.1)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data.masking import MaskRates, mask_tokens
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import SegmentRows, unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.bert import BertForPretraining, Output
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Result, of_each


@dataclasses.dataclass(frozen=True)
class Config:
    """The objective.

    Attributes:
      mask_rate, mask, random: see `noise.MaskRates`.
      whole_words: mask all pieces of a word or none.
      next: the second objective: 'random' is next sentence, 'swap' sentence order, 'none' neither.
      next_rate, short_rate: see `rows.SegmentRows`.
      shuffle: the ordinary tokens of each row come in random order: a control that learns words without their order.
    """

    name: str = 'mlm'
    mask_rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_words: bool = False
    next: Literal['random', 'swap', 'none'] = 'random'
    next_rate: float = 0.5
    short_rate: float = 0.1
    shuffle: bool = False


class Task:
    Data = TextConfig
    config: Config
    corpora: Sequence[str] = ()

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer, self.corpora = config, data, tokenizer, data.names
        if tokenizer.mask is None:
            raise UserError(
                'Masked LM needs a token to mask with, which this tokenizer has not: set tokenizer.path.'
            )
        self.rates = MaskRates(config.mask_rate, config.mask, config.random)

    def row_maker(self, length: int) -> SegmentRows:
        """How `prepare` turns documents into rows."""
        c = self.config
        return SegmentRows(length, c.next, c.next_rate, c.short_rate)

    def predictions(self, length: int) -> int:
        """P: positions predicted in a row, 20 of 128 and 77 of 512 at the rate of the paper."""
        return int(np.ceil(self.rates.rate * length))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        if self.config.shuffle:
            places = np.flatnonzero(np.isin(row.tokens, self.tokenizer.ordinary))
            row.tokens[places] = row.tokens[rng.permutation(places)]
        most = self.predictions(len(row.tokens))
        tokens, chosen = mask_tokens(row, self.rates, most, self.tokenizer, rng, self.config.whole_words)
        positions = np.zeros(most, np.int32)
        positions[: len(chosen)] = chosen
        return {
            **row.inputs(),
            'tokens': tokens,
            'positions': positions,
            'labels': row.tokens[positions],
            'weights': (np.arange(most) < len(chosen)).astype(np.float32),
            'next': np.int32(row.label),
            'source': np.int32(row.source),
            'row_weight': np.float32(1),
        }

    def module(self, model: Any, rngs: Rngs) -> BertForPretraining:
        return BertForPretraining(model, rngs, next=self.config.next != 'none')

    def loss(self, model: BertForPretraining, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        out = self.encoded(model, batch, key, batch['positions'])
        weights = batch['weights'] * batch['row_weight'][:, None]
        losses, correct = model.masked_loss(out.hidden_states[-1][:, 1:], batch['labels'])
        terms, metrics = {'mlm_loss': mean(losses, weights)}, {'mlm_accuracy': mean(correct, weights)}
        metrics |= of_each(self.corpora, 'mlm_loss', losses, weights, batch)
        if self.config.next != 'none':
            scores = model.next_scores(out.pooled)
            terms['next_loss'] = mean(cross_entropy(scores, batch['next']), batch['row_weight'])
            metrics['next_accuracy'] = mean(scores.argmax(-1) == batch['next'], batch['row_weight'])
        return Result(terms, metrics, {})

    def encoded(
        self,
        model: BertForPretraining,
        batch: dict[str, jax.Array],
        key: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> Output:
        """What the encoder makes of a batch; `at` as of `Bert`."""
        placed = self.placed(model, batch)
        return model.bert(batch['tokens'], batch['segments'], batch['valid'], key, at, **placed)

    def placed(self, model: BertForPretraining, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The `positions` of `Bert`, if tokens do not count from the first column on."""
        return {}

    def flops(self, model: Any, batch: Batch) -> float:
        tokens, predicted = batch['valid'].sum(), batch['weights'].sum()
        head = predicted * 2 * (model.width**2 + model.width * model.vocab_size)
        return model.block_flops(tokens, batch['valid'].shape[1], predicted + len(batch['valid'])) + head

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        return {}
