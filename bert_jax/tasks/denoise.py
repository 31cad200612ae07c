"""Restore a text that was broken on purpose: BART's five noises (Lewis et al. 2020, section 2.2), MASS, T5's spans."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax.core.config import nearest, within
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import corruption
from bert_jax.data.causal_rows import DocumentRows
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Result, of_each

# What each does to a text [n], by config and tokenizer.
NOISES: dict[str, Callable[['Config', Any, np.ndarray, np.random.Generator], np.ndarray]] = {
    'mask': lambda c, t, text, rng: corruption.mask_tokens(text, c.rate, t.mask, rng),
    'delete': lambda c, t, text, rng: corruption.delete_tokens(text, c.rate, rng),
    'infill': lambda c, t, text, rng: corruption.infill(text, c.rate, c.span, t.mask, rng),
    'permute': lambda c, t, text, rng: corruption.permute_sentences(text, t.stops, rng),
    'rotate': lambda c, t, text, rng: corruption.rotate(text, rng),
}
ALONE = ('mass', 'spans')  # these have targets of their own


@dataclasses.dataclass(frozen=True)
class Config:
    """The noise; the default is the one that BART was published with.

    Attributes:
      noise: what is done to a text, in this order: some of `NOISES`, or mass or spans alone.
      rate: the share of the tokens that mask, delete, infill, mass or spans take. BART infills 0.3, MASS takes 0.5,
        T5 0.15.
      span: the mean length of the spans of infill and spans.
      sentinels: for spans, how many tokens are added to the vocabulary.
      chunk: the loss is computed of so many positions of each row at a time, which saves memory; 0 is all at once.
    """

    name: str = 'denoise'
    noise: tuple[str, ...] = ('permute', 'infill')
    rate: float = 0.3
    span: float = 3.0
    sentinels: int = 100
    chunk: int = 0

    def __post_init__(self) -> None:
        within(self, 'task', 0, 1, 'rate')
        within(self, 'task', 0.1, math.inf, 'span')
        within(self, 'task', 0, math.inf, 'chunk')
        within(self, 'task', 2, math.inf, 'sentinels')
        for name in self.noise:
            if name not in (*NOISES, *ALONE):
                raise UserError(f'There is no noise {name!r}: {nearest(name, (*NOISES, *ALONE))}')
            if name in ALONE and len(self.noise) > 1:
                raise UserError(f'The noise {name} goes with no other: set task.noise={name}.')
            if name == 'mass' and not self.rate:
                raise UserError('The noise mass has nothing to predict at task.rate=0: set it higher.')


class Task:
    Data = TextConfig

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer
        if tokenizer.mask is None and {*config.noise} & {'mask', 'infill', 'mass'}:
            raise UserError(
                'This noise needs a token to mask with, which this tokenizer has not: set tokenizer.path.'
            )

    @staticmethod
    def extra_tokens(config: Config, tokenizer: Tokenizer) -> int:
        """Entries of the vocabulary beyond those of the tokenizer."""
        return config.sentinels if config.noise == ('spans',) else 0

    def row_maker(self, length: int) -> DocumentRows:
        """How `prepare` turns documents into rows."""
        return DocumentRows(length)

    def broken(self, text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A text [n] with the noise, without special tokens; not of mass or spans."""
        for name in self.config.noise:
            text = NOISES[name](self.config, self.tokenizer, text, rng)
        return text

    def pair(
        self, text: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """What is made of a text: the encoder's tokens, the decoder's, the labels, and the decoder's first position."""
        c, t = self.config, self.tokenizer
        cls, sep = [t.cls], [t.sep]
        if c.noise == ('mass',):
            gap = corruption.mass(text, c.rate, t.mask, rng)  # type: ignore[arg-type]
            labels = text[gap.start : gap.stop]
            before = np.concatenate([cls, text])[gap.start : gap.stop]
            return np.concatenate([cls, gap.text, sep]), before, labels, gap.start
        if c.noise == ('spans',):
            sentinels = np.arange(c.sentinels) + len(t)
            source, target = corruption.spans(text, c.rate, c.span, sentinels, rng)
            labels = np.concatenate([target, sep])
        else:
            source = self.broken(text, rng)
            labels = np.concatenate([cls, text, sep])
        return np.concatenate([cls, source, sep]), np.concatenate([sep, labels[:-1]]), labels, 0

    def target_length(self, length: int) -> int:
        """The most tokens of the decoder for rows of `length`."""
        c, most = self.config, length - 2
        taken = min(most, int(c.rate * most) + 1)
        if c.noise == ('mass',):
            return taken
        return (
            min(taken + max(1, round(taken / c.span)) + 2, 2 * most + 2) if c.noise == ('spans',) else length
        )

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        source, before, labels, first = self.pair(row.tokens[1 : row.length - 1], rng)
        length = self.target_length(len(row.tokens))
        return {
            'tokens': self._padded(source, len(row.tokens)),
            'valid': np.arange(len(row.tokens)) < len(source),
            'targets': self._padded(before, length),
            'positions': np.minimum(first + np.arange(length), len(row.tokens) - 1).astype(np.int32),
            'labels': self._padded(labels, length),
            'weights': (np.arange(length) < len(labels)).astype(np.float32),
            'source': np.int32(row.source),
            'row_weight': np.float32(1),
        }

    def _padded(self, tokens: np.ndarray, length: int) -> np.ndarray:
        return np.pad(tokens, (0, length - len(tokens)), constant_values=self.tokenizer.pad).astype(np.int32)

    def module(self, model: Any, rngs: Rngs) -> BartForSeq2Seq:
        return BartForSeq2Seq(model, rngs)

    def loss(self, model: BartForSeq2Seq, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        where = batch['positions'] if self.config.noise == ('mass',) else None
        out = model.bart(batch['tokens'], batch['targets'], batch['valid'], key, where)
        weights = batch['weights'] * batch['row_weight'][:, None]
        losses, correct = model.token_loss(out.hidden_states[-1], batch['labels'], self.config.chunk)
        metrics = {'restore_accuracy': mean(correct, weights)}
        metrics |= of_each(self.data.names, 'restore_loss', losses, weights, batch)
        return Result({'restore_loss': mean(losses, weights)}, metrics, {})

    def flops(self, model: Any, batch: Batch) -> float:
        tokens, targets = np.count_nonzero(batch['valid']), batch['weights'].sum()
        lengths = batch['valid'].shape[1], batch['weights'].shape[1]
        head = targets * 2 * model.width * model.vocab_size
        return model.seq2seq_flops(tokens, lengths[0], targets, lengths[1]) + head

    def scores(self, outputs: dict[str, np.ndarray], about: Any) -> dict[str, Any]:
        return {}
