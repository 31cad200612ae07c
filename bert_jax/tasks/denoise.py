"""Denoising: restore a corrupted text, as in BART (Lewis et al. 2020, section 2.2), MASS and T5's span corruption."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax import tasks
from bert_jax.core.config import check_range, did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data import corruption
from bert_jax.data.causal_rows import DocumentRows, PackedRows
from bert_jax.data.packing import pack_row
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
      num_sentinels: number of sentinel tokens that 'spans' adds to the vocabulary, unless the tokenizer has them: those
        of T5 have the names <extra_id_0>, <extra_id_1>, ...
      pack_documents: whether several documents share a row, without attention between them, so that nearly no token is
        padding. Each is corrupted separately. With `PARTIAL_TARGETS`, a row holds at most one document for each 64
        tokens, which bounds the length of the targets.
      loss_chunk: number of positions per row whose vocabulary logits are computed at once. Small values save memory; 0
        computes all at once.
    """

    name: str = 'denoise'
    noise: tuple[str, ...] = ('permute', 'infill')
    rate: float = 0.3
    mean_span_length: float = 3.0
    num_sentinels: int = 100
    pack_documents: bool = False
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
    def has_partial_target(self) -> bool:
        """Whether the target is only a part of the text."""
        return bool(self.noise) and self.noise[0] in PARTIAL_TARGETS

    @property
    def has_fragment(self) -> bool:
        """Whether the target is one fragment of the text, whose tokens keep their positions."""
        return bool(self.noise) and self.noise[0] in _FRAGMENTS


class Task(tasks.Task):
    """Denoising with an encoder-decoder: corrupted text in, original text or its missing spans out."""

    Data = TextConfig
    models = ('bart',)

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        if tokenizer.mask is None and {*config.noise} & {'mask', 'infill', *_FRAGMENTS}:
            raise UserError(
                f'task.noise={",".join(config.noise)} needs a mask token, which this tokenizer lacks. Set tokenizer.path '
                'to a tokenizer that has one.'
            )

    @staticmethod
    def num_extra_tokens(config: Config, tokenizer: Tokenizer) -> int:
        """Return the number of vocabulary entries beyond the tokenizer's: the sentinels that it does not have."""
        return config.num_sentinels if config.noise == ('spans',) and not tokenizer.sentinels else 0

    def row_maker(self, length: int) -> DocumentRows | PackedRows:
        """Return the function with which `prepare` cuts documents into rows of `length` tokens."""
        if not self.config.pack_documents:
            return DocumentRows(length)
        return PackedRows(
            length, max_texts=self._max_texts(length) if self.config.has_partial_target else None
        )

    def _max_texts(self, length: int) -> int:
        """Return the largest number of texts in a row of `length` tokens, if their targets are partial."""
        return max(2, length // 64) if self.config.pack_documents else 1

    def make_pair(
        self, text: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Turn a text, [n] tokens, into an input and a target.

        Returns:
          The encoder's tokens, the decoder's input tokens, the labels, and the position id of the first
          decoder token: the start of the fragment, otherwise 0.
        """
        c, t = self.config, self.tokenizer
        cls, sep = [*t.prefix], [t.sep]
        if c.has_fragment:
            replacements = t.ordinary_ids if c.noise == ('mass',) else None
            fragment = corruption.mask_fragment(text, c.rate, t.mask, replacements, rng)  # type: ignore[arg-type]
            labels = text[fragment.start : fragment.stop]
            inputs = np.concatenate([cls, text])[fragment.start : fragment.stop]
            return np.concatenate([cls, fragment.text, sep]), inputs, labels, fragment.start
        if c.noise == ('spans',):
            sentinels = np.array(t.sentinels) if t.sentinels else np.arange(c.num_sentinels) + len(t)
            source, target = corruption.corrupt_spans(text, c.rate, c.mean_span_length, sentinels, rng)
            labels = np.concatenate([target, sep])
        else:
            source = text
            for name in c.noise:
                source = NOISES[name](c, t, source, rng)
            # With GPT-2's vocabulary, in which [CLS] is [SEP], generation would end at a [CLS] label.
            labels = np.concatenate([cls, text, sep])[int(cls == sep) :]
        inputs = np.concatenate([[t.decoder_start], labels[:-1]])
        return np.concatenate([cls, source, sep]), inputs, labels, 0

    def target_length(self, length: int) -> int:
        """Return the largest number of decoder tokens for rows of `length` tokens."""
        size = length - 1 - len(self.tokenizer.prefix)
        c, n = self.config, self._max_texts(length)
        if not c.has_partial_target:
            return length
        corrupted = min(size, int(c.rate * size) + n)  # each text may round up
        if c.has_fragment:
            return corrupted
        spans = max(1, round(corrupted / c.mean_span_length)) + n - 1
        return min(corrupted + spans + 2 * n, 2 * size + 2 * n)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row, t = unpack(packed), self.tokenizer
        ends = 1 + np.flatnonzero(row.tokens[: row.length] == t.sep)
        if t.prefix == (t.sep,):  # as in GPT-2's vocabulary: every text also begins with it
            ends = ends[1::2]
        starts = [0, *ends[:-1]]
        texts = [
            self._corrupt(row.tokens[i + len(t.prefix) : j - 1], rng)
            for i, j in zip(starts, ends, strict=True)
        ]
        length = len(row.tokens)
        batch = pack_row(texts, [length, self.target_length(length)], len(texts))
        del batch['starts']
        if not self.config.pack_documents:
            batch |= {name: batch[name] > 0 for name in ('valid', 'target_valid')}
        return batch | {'corpus': np.int32(row.corpus), 'row_weight': np.float32(1)}

    def _corrupt(self, text: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the arrays of a text, [n] tokens, without padding."""
        source, inputs, labels, first = self.make_pair(text, rng)
        arrays = {'tokens': source, 'targets': inputs, 'labels': labels}
        if self.config.has_fragment:
            arrays['positions'] = first + np.arange(len(labels))
        return {
            **{name: array.astype(np.int32) for name, array in arrays.items()},
            'valid': np.ones(len(source), bool),
            'target_valid': np.ones(len(labels), bool),
            'weights': np.ones(len(labels), np.float32),
        }

    def build_model(self, model_config: Any, rngs: Rngs) -> BartForSeq2Seq:
        return BartForSeq2Seq(model_config, rngs)

    def loss(self, model: BartForSeq2Seq, batch: Batch, key: jax.Array | None) -> TaskOutput:
        documents = batch['target_valid'] if self.config.pack_documents else None
        inputs = batch['tokens'], batch['targets'], batch['valid'], key, batch.get('positions')
        hidden = model.bart(*inputs, target_documents=documents).hidden_states[-1]
        losses, correct = model.token_loss(hidden, batch['labels'], self.config.loss_chunk)
        return token_output('restore', losses, correct, batch, self.data.corpus_names)

    def count_tokens(self, batch: Batch) -> float:
        """Return the number of tokens of the texts and the targets, without padding."""
        return super().count_tokens(batch) + np.count_nonzero(batch['target_valid'])

    def flops(self, model_config: Any, batch: Batch) -> float:
        head = float(batch['weights'].sum()) * 2 * model_config.width * model_config.vocab_size
        sides = (tasks.attention_size(batch[name]) for name in ('valid', 'target_valid'))
        return model_config.seq2seq_flops(*itertools.chain(*sides)) + head
