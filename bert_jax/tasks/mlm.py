"""Masked language modeling with next-sentence prediction (Devlin et al. 2019, section 3.1)."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import tasks
from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import Mean, mean
from bert_jax.data import scripts, segmentation, sources
from bert_jax.data.causal_rows import PackedRows, document_numbers
from bert_jax.data.masking import MaskRates, diffuse_tokens, mask_tokens
from bert_jax.data.pipeline import Batch, MakeExample
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import SegmentRows, unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.heads import Output
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import TaskOutput, token_output


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of masked language modeling.

    Attributes:
      mask_rate: share of the tokens to predict.
      final_mask_rate: share of the tokens to predict at the end of the run. The share changes linearly from `mask_rate`
        at its start (masking ratio decay, Yang et al. 2023, lowers it); 0 keeps `mask_rate`.
      eval_mask_rate: share of the tokens to predict in evaluations, so that runs with other rates are comparable.
      mask_fraction: share of the predicted tokens that are replaced by [MASK].
      random_fraction: share of the predicted tokens that are replaced by a random token; the rest is kept.
      whole_word_masking: whether all pieces of a word are masked together.
      segmenter: finds the words for whole_word_masking in scripts without spaces between them, such as Chinese: 'jieba'
        (`pip install jieba`), or a file with one word per line. Empty takes words to be separated by spaces.
      sentence_objective: second objective: 'random' is next-sentence prediction, 'swap' is sentence-order prediction
        (Lan et al. 2020), 'none' is masked language modeling alone.
      negative_rate: share of the rows whose second segment is random or swapped.
      short_sequence_rate: share of the documents whose rows are packed to a random shorter length.
      pack_documents: whether several documents share a row, without attention between them, so that nearly no token is
        padding; needs sentence_objective='none'. short_sequence_rate then has no effect.
      shuffle_tokens: whether the ordinary tokens of each row are shuffled, to train a control model that sees words
        without their order.
      diffusion: whether to train a masked diffusion model (Sahoo et al. 2024, arXiv 2406.07524), which can write text. Each
        row has its own masking rate, uniform in (0, 1], each token becomes [MASK] with this probability, and the loss of a
        row is divided by its rate. The loss per token, `diffusion_loss`, is then an upper bound of the negative
        log-likelihood. Needs sentence_objective='none'; the settings of other masks have no effect.
    """

    name: str = 'mlm'
    mask_rate: float = 0.15
    final_mask_rate: float = 0.0
    eval_mask_rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1
    whole_word_masking: bool = False
    segmenter: str = ''
    sentence_objective: Literal['random', 'swap', 'none'] = 'random'
    negative_rate: float = 0.5
    short_sequence_rate: float = 0.1
    pack_documents: bool = False
    shuffle_tokens: bool = False
    diffusion: bool = False

    def __post_init__(self) -> None:
        check_range(self, 'task', 0, 1, 'final_mask_rate')
        check_range(self, 'task', 1e-6, 1, 'eval_mask_rate')
        if self.segmenter and not self.whole_word_masking:
            raise UserError(
                f'task.segmenter={self.segmenter!r} has no effect without task.whole_word_masking=true. Set both, or neither.'
            )
        if self.pack_documents and (self.sentence_objective != 'none' or self.shuffle_tokens):
            raise UserError(
                'task.pack_documents=true needs task.sentence_objective=none and task.shuffle_tokens=false. Set them, or '
                'task.pack_documents=false.'
            )
        if self.diffusion and (
            self.sentence_objective != 'none' or self.whole_word_masking or self.final_mask_rate
        ):
            raise UserError(
                'task.diffusion=true needs task.sentence_objective=none, task.whole_word_masking=false and '
                'task.final_mask_rate=0. Set them, or task.diffusion=false.'
            )


class Task(tasks.Task):
    """Masked language modeling, and next-sentence prediction unless it is turned off.

    Attributes:
      mask_offset: number of positions between the output that predicts a masked token and the token.
    """

    Data = TextConfig
    models = ('bert',)
    mask_offset: int = 0

    def __init__(self, config: Config, data: TextConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        self.corpora: Sequence[str] = data.corpus_names
        if tokenizer.mask is None:
            raise UserError(
                'Masked language modeling needs a mask token, which this tokenizer lacks. Set tokenizer.path to a '
                'tokenizer that has one.'
            )
        self.rates = MaskRates(config.mask_rate, config.mask_fraction, config.random_fraction)
        self._final_rate = config.final_mask_rate or config.mask_rate

    def row_maker(self, length: int) -> SegmentRows | PackedRows:
        """Return the function with which `prepare` packs documents into rows of `length` tokens."""
        c = self.config
        words = segmentation.make(c.segmenter)
        if c.pack_documents:
            return PackedRows(length, words)
        return SegmentRows(length, c.sentence_objective, c.negative_rate, c.short_sequence_rate, words)

    @staticmethod
    def check_text(config: Config, data: TextConfig) -> None:
        """Raise UserError if whole words are to be masked, but cannot be found in the text."""
        if segmentation.make(config.segmenter) or not config.whole_word_masking:
            return
        try:
            firsts = [source for corpus in data.corpora() for source in corpus[:1]]
            starts = [sources.read_start(source, data.split, data.text_key) for source in firsts]
        except UserError:  # rows may be copied without their text
            return
        unspaced = [not scripts.separates_words([start]) for start in starts]
        advice = 'Set task.segmenter to jieba for Chinese, or to a file with one word per line'
        if starts and all(unspaced):
            raise UserError(
                'task.whole_word_masking=true needs words, but the text of data.sources has no spaces between words. '
                f'{advice}.'
            )
        for name in itertools.compress(data.corpus_names, unspaced):
            logging.warning(
                '%s has no spaces between words, so its tokens are masked singly. %s.', name, advice
            )

    def max_predictions(self, length: int) -> int:
        """Return P, the maximum number of predicted positions per row: 20 of 128 and 77 of 512 at a rate of 0.15."""
        if self.config.diffusion:
            return length
        return int(np.ceil(max(self.rates.rate, self._final_rate) * length))

    def example_at(self, progress: float) -> MakeExample:
        if self._final_rate == self.rates.rate:
            return self.example
        rate = self.rates.rate + (self._final_rate - self.rates.rate) * progress
        return functools.partial(self.example, rate=rate)

    def for_evaluation(self) -> 'Task':
        rate = self.config.eval_mask_rate
        config = dataclasses.replace(self.config, mask_rate=rate, final_mask_rate=0.0)
        return self if config == self.config else type(self)(config, self.data, self.tokenizer)

    def example(self, packed: np.ndarray, rng: np.random.Generator, rate: float | None = None) -> Batch:
        """Return the arrays of one example; `rate` takes the place of `task.mask_rate`."""
        rates = self.rates if rate is None else dataclasses.replace(self.rates, rate=rate)
        row, vocab_size = unpack(packed), len(self.tokenizer)
        if self.config.shuffle_tokens:
            ordinary = np.flatnonzero(np.isin(row.tokens % vocab_size, self.tokenizer.ordinary_ids))
            row.tokens[ordinary] = row.tokens[rng.permutation(ordinary)]
        marks, tokens = np.divmod(row.tokens, vocab_size)  # see `rows.encode_sentences`
        row = row._replace(tokens=tokens)
        continues_word = None
        if self.config.whole_word_masking:
            continues_word = marks > 0 if self.config.segmenter else self.tokenizer.continues_word[tokens]
        size = self.max_predictions(len(row.tokens))
        weight = 1.0
        if self.config.diffusion:
            drawn = 1 - rng.random()  # in (0, 1]
            tokens, masked = diffuse_tokens(row, drawn, self.tokenizer, rng)
            weight /= drawn
        else:
            tokens, masked = mask_tokens(row, rates, size, self.tokenizer, rng, continues_word)
        positions = np.zeros(size, np.int32)
        positions[: len(masked)] = masked
        inputs = row.inputs()
        if self.config.pack_documents:
            inputs['valid'] = document_numbers(row.tokens, row.length, self.tokenizer.sep)
        return {
            **inputs,
            'tokens': tokens,
            'positions': positions,
            'labels': row.tokens[positions],
            'weights': np.where(np.arange(size) < len(masked), np.float32(weight), np.float32(0)),
            'next_sentence_label': np.int32(row.label),
            'corpus': np.int32(row.corpus),
            'row_weight': np.float32(1),
        }

    def build_model(self, model_config: Any, rngs: Rngs) -> BertForPretraining:
        return BertForPretraining(model_config, rngs, next_sentence=self.config.sentence_objective != 'none')

    def loss(self, model: BertForPretraining, batch: Batch, key: jax.Array | None) -> TaskOutput:
        encoded = self.encode(model, batch, key, batch['positions'])
        losses, correct = model.masked_loss(encoded.hidden_states[-1][:, 1:], batch['labels'])
        if self.config.diffusion:
            return self._diffusion_output(losses, correct, batch)
        output = token_output('mlm', losses, correct, batch, self.corpora)
        if self.config.sentence_objective != 'none':
            logits, labels = model.next_sentence_logits(encoded.pooled), batch['next_sentence_label']
            output.losses['next_loss'] = mean(cross_entropy(logits, labels), batch['row_weight'])
            output.metrics['next_accuracy'] = mean(logits.argmax(-1) == labels, batch['row_weight'])
        return output

    def _diffusion_output(self, losses: jax.Array, correct: jax.Array, batch: Batch) -> TaskOutput:
        """Average the loss over all tokens that could be masked, and the accuracy over those that are.

        The arguments are those of `token_output`, with the weights of the loss.
        """
        special = jnp.array([self.tokenizer.cls, self.tokenizer.sep], jnp.int32)
        is_token = jnp.isin(batch['tokens'], special, invert=True) & batch['valid'].astype(bool)

        def mean_loss(row_weights: jax.Array) -> Mean:
            total = (losses * batch['weights'] * row_weights[:, None]).sum()
            return Mean(total, (is_token.sum(1).astype(jnp.float32) * row_weights).sum())

        weights = batch['row_weight']
        metrics = {
            'mlm_accuracy': mean(correct, (batch['weights'] > 0).astype(jnp.float32) * weights[:, None])
        }
        for i, corpus in enumerate(self.corpora):
            metrics[f'diffusion_loss/{corpus}'] = mean_loss(
                weights * (batch['corpus'] == i).astype(jnp.float32)
            )
        return TaskOutput({'diffusion_loss': mean_loss(weights)}, metrics, {})

    def encode(
        self,
        model: BertForPretraining,
        batch: Batch,
        key: jax.Array | None = None,
        output_positions: jax.Array | None = None,
    ) -> Output:
        """Run the encoder on a batch; see `Bert` for `output_positions`."""
        inputs = (batch['tokens'], batch['segments'], batch['valid'])
        return model.bert(*inputs, key, output_positions, self.position_ids(model, batch))

    def position_ids(self, model: BertForPretraining, batch: Batch) -> jax.Array | None:
        """Return the position of each token [B, T]; None counts them from the start of each document."""
        return None

    def flops(self, model_config: Any, batch: Batch) -> float:
        (tokens, length), predicted = (
            tasks.attention_size(batch['valid']),
            float(np.count_nonzero(batch['weights'])),
        )
        head = predicted * 2 * model_config.token_width * (model_config.width + model_config.vocab_size)
        outputs = predicted + len(batch['valid'])  # including those for the pooler
        return model_config.block_flops(tokens, length, outputs) + head
