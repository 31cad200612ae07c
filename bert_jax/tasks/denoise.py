"""Denoising: restore a corrupted text, as in BART (Lewis et al. 2020, section 2.2), MASS and T5's span corruption."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax import tasks
from bert_jax.core.config import check_range, did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data import corruption
from bert_jax.data.causal_rows import DocumentRows
from bert_jax.data.pipeline import Batch
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import TaskOutput, token_output

# BART's noise functions, which can be combined: (config, tokenizer, text [n], rng) -> corrupted text.
NOISES: dict[str, Callable[['Config', Any, np.ndarray, np.random.Generator], np.ndarray]] = {
    'mask': lambda c, t, text, rng: corruption.mask_tokens(text, c.rate, t.mask, rng),
    'delete': lambda c, t, text, rng: corruption.delete_tokens(text, c.rate, rng),
    'infill': lambda c, t, text, rng: corruption.infill_spans(text, c.rate, c.mean_span_length, t.mask, rng),
    'permute': lambda c, t, text, rng: corruption.permute_sentences(text, t.ends_sentence, rng),
    'rotate': lambda c, t, text, rng: corruption.rotate_document(text, rng),
}
# Objectives whose target is one masked fragment. MASS masks 80 % of its tokens; the masked seq2seq objective, to which
# BART is compared (Lewis et al. 2020, section 4.1), masks all of them.
_FRAGMENTS = ('mass', 'masked_seq2seq')
# Objectives whose target is not the whole text, so that no other noise can be combined with them.
PARTIAL_TARGETS = (*_FRAGMENTS, 'spans')


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of denoising; the defaults are those of the published BART models.

    Attributes:
      noise: one or more names of `NOISES` to apply in this order, or a single name of `PARTIAL_TARGETS`: 'mass',
        'masked_seq2seq' or 'spans'.
      rate: share of the tokens that 'mask', 'delete', 'infill', 'mass', 'masked_seq2seq' and 'spans' corrupt. BART uses
        0.3, MASS 0.5 and T5 0.15.
      mean_span_length: mean length of the spans of 'infill' and 'spans', in tokens.
      num_sentinels: number of sentinel tokens that 'spans' adds to the vocabulary.
      loss_chunk: number of positions per row whose vocabulary logits are computed at once. Small values save memory; 0
        computes all at once.
    """

    name: str = 'denoise'
    noise: tuple[str, ...] = ('permute', 'infill')
    rate: float = 0.3
    mean_span_length: float = 3.0
    num_sentinels: int = 100
    loss_chunk: int = 0

    def __post_init__(self) -> None:
        check_range(self, 'task', 0, 1, 'rate')
        check_range(self, 'task', 0.1, math.inf, 'mean_span_length')
        check_range(self, 'task', 0, math.inf, 'loss_chunk')
        check_range(self, 'task', 2, math.inf, 'num_sentinels')
        known = (*NOISES, *PARTIAL_TARGETS)
        for name in self.noise:
            if name not in known:
                raise UserError(f'Unknown noise {name!r}: {did_you_mean(name, known)}')
            if name in PARTIAL_TARGETS and len(self.noise) > 1:
                raise UserError(
                    f'task.noise={",".join(self.noise)} is invalid: {name} cannot be combined with other noise. '
                    f'Set task.noise={name}.'
                )
            if name in _FRAGMENTS and not self.rate:
                raise UserError(f'task.rate=0 leaves {name} nothing to predict. Set task.rate above 0.')

    @property
    def has_fragment(self) -> bool:
        """Whether the target is one fragment of the text, whose tokens keep their positions."""
        return self.noise[0] in _FRAGMENTS if self.noise else False


class Task(tasks.Task):
    """Denoising with an encoder-decoder: corrupted text in, original text or its missing spans out."""

    Data = TextConfig

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        if tokenizer.mask is None and {*config.noise} & {'mask', 'infill', *_FRAGMENTS}:
            raise UserError(
                f'task.noise={",".join(config.noise)} needs a mask token, which this tokenizer lacks. Set tokenizer.path '
                'to a tokenizer that has one.'
            )

    @staticmethod
    def num_extra_tokens(config: Config, tokenizer: Tokenizer) -> int:
        """Return the number of vocabulary entries beyond the tokenizer's: the sentinels."""
        return config.num_sentinels if config.noise == ('spans',) else 0

    def row_maker(self, length: int) -> DocumentRows:
        """Return the function with which `prepare` cuts documents into rows of `length` tokens."""
        return DocumentRows(length)

    def make_pair(
        self, text: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Turn a text, [n] tokens, into an input and a target.

        Returns:
          The encoder's tokens, the decoder's input tokens, the labels, and the position id of the first
          decoder token: the start of the fragment, otherwise 0.
        """
        c, t = self.config, self.tokenizer
        cls, sep = [t.cls], [t.sep]
        if c.has_fragment:
            replacements = t.ordinary_ids if c.noise == ('mass',) else None
            fragment = corruption.mask_fragment(text, c.rate, t.mask, replacements, rng)  # type: ignore[arg-type]
            labels = text[fragment.start : fragment.stop]
            inputs = np.concatenate([cls, text])[fragment.start : fragment.stop]
            return np.concatenate([cls, fragment.text, sep]), inputs, labels, fragment.start
        if c.noise == ('spans',):
            sentinels = np.arange(c.num_sentinels) + len(t)
            source, target = corruption.corrupt_spans(text, c.rate, c.mean_span_length, sentinels, rng)
            labels = np.concatenate([target, sep])
        else:
            source = text
            for name in c.noise:
                source = NOISES[name](c, t, source, rng)
            # With GPT-2's vocabulary, in which [CLS] is [SEP], generation would end at a [CLS] label.
            labels = np.concatenate([cls, text, sep])[int(cls == sep) :]
        return np.concatenate([cls, source, sep]), np.concatenate([sep, labels[:-1]]), labels, 0

    def target_length(self, length: int) -> int:
        """Return the largest number of decoder tokens for rows of `length` tokens."""
        c, size = self.config, length - 2
        corrupted = min(size, int(c.rate * size) + 1)
        if c.has_fragment:
            return corrupted
        if c.noise == ('spans',):
            spans = max(1, round(corrupted / c.mean_span_length))
            return min(corrupted + spans + 2, 2 * size + 2)
        return length

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        source, inputs, labels, first = self.make_pair(row.tokens[1 : row.length - 1], rng)
        length = self.target_length(len(row.tokens))
        return {
            'tokens': self._pad(source, len(row.tokens)),
            'valid': np.arange(len(row.tokens)) < len(source),
            'targets': self._pad(inputs, length),
            'positions': np.minimum(first + np.arange(length), len(row.tokens) - 1).astype(np.int32),
            'labels': self._pad(labels, length),
            'weights': (np.arange(length) < len(labels)).astype(np.float32),
            'corpus': np.int32(row.corpus),
            'row_weight': np.float32(1),
        }

    def _pad(self, tokens: np.ndarray, length: int) -> np.ndarray:
        return np.pad(tokens, (0, length - len(tokens)), constant_values=self.tokenizer.pad).astype(np.int32)

    def build_model(self, model_config: Any, rngs: Rngs) -> BartForSeq2Seq:
        return BartForSeq2Seq(model_config, rngs)

    def loss(self, model: BartForSeq2Seq, batch: Batch, key: jax.Array | None) -> TaskOutput:
        positions = batch['positions'] if self.config.has_fragment else None
        out = model.bart(batch['tokens'], batch['targets'], batch['valid'], key, positions)
        losses, correct = model.token_loss(out.hidden_states[-1], batch['labels'], self.config.loss_chunk)
        return token_output('restore', losses, correct, batch, self.data.corpus_names)

    def count_tokens(self, batch: Batch) -> float:
        """Return the number of tokens of the texts and the targets, without padding."""
        return super().count_tokens(batch) + float(batch['weights'].sum())

    def flops(self, model_config: Any, batch: Batch) -> float:
        tokens, targets = np.count_nonzero(batch['valid']), batch['weights'].sum()
        source_length, target_length = batch['valid'].shape[1], batch['weights'].shape[1]
        head = targets * 2 * model_config.width * model_config.vocab_size
        return model_config.seq2seq_flops(tokens, source_length, targets, target_length) + head
