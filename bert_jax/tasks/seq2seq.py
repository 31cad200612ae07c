"""Sequence to sequence: generate a summary or a translation of a text (Lewis et al. 2020, sections 3.3 and 3.4)."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.data import rouge, seq2seq
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.seq2seq import Pair, Seq2SeqConfig
from bert_jax.modeling import beam_search, decoding, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.modeling.module import Rngs
from bert_jax.modeling.stack import unstack_model
from bert_jax.tasks import Downstream, Examples, Mistake, TaskOutput, attention_size, shorten, token_output


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of text generation.

    Attributes:
      decoder_only: whether the model is a decoder such as GPT, which reads the text as a prompt and is trained on the
        target only (Lewis et al. 2020, section 4.1). Otherwise it is an encoder-decoder.
      num_beams: number of beams of the beam search; 1 is greedy decoding.
      length_penalty: exponent of the length normalization, see `beam_search.search`.
      loss_chunk: number of positions per row whose vocabulary logits are computed at once. Small values save memory; 0
        computes all at once.
      num_samples: number of generated texts that are reported with the scores.
      rouge_words: words that ROUGE compares: 'english' (stems, as in the published scores of English summaries),
        'unicode' (words of any language; characters in scripts without spaces), or 'auto', which is 'english' if the
        targets hardly have letters other than a to z.
    """

    name: str = 'seq2seq'
    decoder_only: bool = False
    num_beams: int = 4
    length_penalty: float = 1.0
    loss_chunk: int = 0
    num_samples: int = 5
    rouge_words: Literal['auto', 'english', 'unicode'] = 'auto'

    def __post_init__(self) -> None:
        check_range(self, 'task', 1, math.inf, 'num_beams')
        check_range(self, 'task', 0, math.inf, 'loss_chunk', 'num_samples')


class Task(Downstream):
    """Generation of a target text with an encoder-decoder or a decoder."""

    Data = Seq2SeqConfig
    supports_packing = True

    @property
    def _target_length(self) -> int:
        return self.data.target_length or self.data.length

    @property
    def _begins_with_end(self) -> bool:
        """Whether the first token of a target is the one that ends it, as in GPT-2's vocabulary."""
        return self.tokenizer.prefix == (self.tokenizer.sep,)

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        return Examples(*seq2seq.make_rows(records, self.data, self.tokenizer, with_labels))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        source, target = unpack(packed[0]), unpack(packed[1])
        tokens, valid = source.tokens[: self.data.length], source.inputs()['valid'][: self.data.length]
        labels = target.tokens[: self._target_length]
        if self.config.decoder_only:
            return self._join(tokens, source.length, labels, target.length)
        # Generation ends at the first [SEP]. With GPT-2's vocabulary, in which [CLS] is the same token, labels begin with
        # the text; [CLS] moves behind it, where it has no weight.
        skipped = int(self._begins_with_end)
        labels = np.roll(labels, -skipped)
        target_valid = np.arange(len(labels)) < target.length - skipped
        return {
            'tokens': tokens,
            'valid': valid,
            'targets': np.concatenate([[self.tokenizer.decoder_start], labels[:-1]]).astype(np.int32),
            'target_valid': target_valid,
            'labels': labels,
            'weights': target_valid.astype(np.float32),
            'row_weight': np.float32(1),
        }

    def _join(self, tokens: np.ndarray, length: int, target: np.ndarray, target_length: int) -> Batch:
        """Return the example of a row [CLS] text [SEP] target [SEP], with weights only on the target."""
        target_tokens = target[1:target_length]
        joined = np.full(len(tokens) + len(target) - 1, self.tokenizer.pad, np.int32)
        joined[:length] = tokens[:length]
        joined[length : length + len(target_tokens)] = target_tokens
        index, first = np.arange(len(joined) - 1), length - 1
        valid = index < first + len(target_tokens)
        return {
            'tokens': joined[:-1],
            'valid': valid,
            'labels': joined[1:],
            'weights': (valid & (index >= first)).astype(np.float32),
            'prompt_length': np.int32(length),
            'row_weight': np.float32(1),
        }

    def text_lengths(self, rows: np.ndarray) -> np.ndarray:
        lengths = rows[..., 0].astype(np.int64)
        if self.config.decoder_only:
            return lengths.sum(1) - 2  # without the target's [CLS], and the last [SEP], which is only a label
        return lengths - [0, int(self._begins_with_end)]

    def build_model(self, model_config: Any, rngs: Rngs) -> BartForSeq2Seq | GptForCausalLM:
        required = 'gpt' if self.config.decoder_only else 'bart'
        if model_config.name != required:
            raise UserError(
                f'task.decoder_only={self.config.decoder_only} needs a {required} model, but the model is '
                f'{model_config.name}. Set task.decoder_only (true for gpt, false for bart) or init.checkpoint.'
            )
        if self.config.decoder_only:
            length = self.data.length + self._target_length
            model_config.check_length(length, 'data.length or data.target_length')
            return GptForCausalLM(model_config, rngs)
        model_config.check_length(self.data.length)
        model_config.check_length(self._target_length, 'data.target_length')
        return BartForSeq2Seq(model_config, rngs)

    def loss(self, model: Any, batch: Batch, key: jax.Array | None) -> TaskOutput:
        if self.config.decoder_only:
            hidden = model.gpt(batch['tokens'], None, batch['valid'], key).hidden_states[-1]
        else:
            documents = batch['target_valid'] if 'starts' in batch else None
            inputs = batch['tokens'], batch['targets'], batch['valid'], key
            hidden = model.bart(*inputs, target_documents=documents).hidden_states[-1]
        losses, correct = model.token_loss(hidden, batch['labels'], self.config.loss_chunk)
        return token_output('target', losses, correct, batch)

    def generate(self, model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Generate a target for each row, by beam search.

        Returns:
          `generated`, [B, N] tokens, where N is the maximum length of a target.
        """
        tokens, valid = batch['tokens'], batch['valid']
        length = self._target_length
        if self.config.decoder_only:
            tokens = tokens[:, : self.data.length]
            valid = jnp.arange(tokens.shape[1]) < batch['prompt_length'][:, None]
            prompt = decoding.to_left_padding(tokens, valid)
        else:
            first = jnp.full((len(tokens), 1), self.tokenizer.decoder_start, jnp.int32)
            prompt = first, jnp.ones(first.shape, bool)
            # The first decoder input takes one position. Nothing is lost: a target of full length ends in [SEP].
            length = int(min(length, model.config.longest_row - 1))
        generated = beam_search.search_rows(
            *module.split(unstack_model(model)),
            *prompt,
            length,
            end=self.tokenizer.sep,
            source=() if self.config.decoder_only else (tokens, valid),
            num_beams=self.config.num_beams,
            length_penalty=self.config.length_penalty,
        )
        return {'generated': generated}

    def count_tokens(self, batch: Batch) -> float:
        """Return the number of tokens of the texts and the targets, without padding."""
        tokens = super().count_tokens(batch)
        return tokens if self.config.decoder_only else tokens + np.count_nonzero(batch['target_valid'])

    def flops(self, model_config: Any, batch: Batch) -> float:
        head = float(batch['weights'].sum()) * 2 * model_config.width * model_config.vocab_size
        source = attention_size(batch['valid'])
        if self.config.decoder_only:
            return model_config.encode_flops(*source) + head
        return model_config.seq2seq_flops(*source, *attention_size(batch['target_valid'])) + head

    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        return [{'prediction': text} for text in self._decode(outputs['generated'])]

    def gold(self, record: Record) -> str:
        return record.text(self.data.target).strip()

    def mistake(self, gold: str, prediction: dict[str, Any]) -> Mistake | None:
        """Return a mistake unless the texts are equal. Its severity is 100 minus the chrF of the generated text."""
        import sacrebleu

        text = prediction['prediction']
        if text == gold:
            return None
        chrf = sacrebleu.sentence_chrf(text, [gold]).score
        return Mistake(100 - chrf, f'{shorten(text)} instead of {shorten(gold)} (chrF {chrf:.1f})')

    def _decode(self, rows: np.ndarray) -> list[str]:
        return [self.tokenizer.decode(decoding.truncate(row, self.tokenizer.sep)).strip() for row in rows]

    def scores(self, outputs: dict[str, np.ndarray], metadata: Sequence[Pair]) -> dict[str, Any]:
        """Compute scores of generated texts; none during training, where nothing is generated.

        Returns:
          ROUGE F1 (see `data.rouge`), BLEU and chrF, in percent; `exact_match` from 0 to 1; and `samples`: the first
          `num_samples` texts, each with its target and the generated text. BLEU compares Chinese characters in Chinese,
          and characters in other languages without spaces.
        """
        if 'generated' not in outputs:
            return {}
        import sacrebleu

        texts = self._decode(outputs['generated'])
        pairs = metadata[: len(texts)]
        targets = [pair.target for pair in pairs]
        self._check_reversible(targets[:8])
        words = self.config.rouge_words
        if words == 'auto':
            words = 'english' if rouge.is_english(targets) else 'unicode'
        bleu_words = rouge.bleu_tokenizer(targets)
        if (words, bleu_words) != ('english', '13a'):
            logging.info('task.rouge_words=%s; the tokenizer of BLEU is %s', words, bleu_words)
        samples = [
            {'text': pair.text, 'target': pair.target, 'generated': text}
            for pair, text in zip(pairs, texts, strict=True)
        ]
        return {
            **rouge.rouge(targets, texts, words),
            'bleu': sacrebleu.corpus_bleu(texts, [targets], tokenize=bleu_words).score,
            'chrf': sacrebleu.corpus_chrf(texts, [targets]).score,
            'exact_match': float(np.mean([a == b.strip() for a, b in zip(texts, targets, strict=True)])),
            'samples': samples[: self.config.num_samples],
        }

    def _check_reversible(self, targets: Sequence[str]) -> None:
        """Warn if the tokenizer does not restore the targets, which even a perfect model could then not generate."""
        decoded = map(self.tokenizer.decode, self.tokenizer.encode(targets))
        if any(a.strip() != b.strip() for a, b in zip(decoded, targets, strict=True)):
            logging.warning(
                'The tokenizer discards case, spaces or characters of the targets, which lowers bleu, chrf and exact_match even '
                'for a perfect model. Pretrain with a byte-level BPE (tokenizer.kind=bpe) to keep them.'
            )

    def format_scores(self, scores: dict[str, Any]) -> str:
        """Format the scores as a table, followed by the sample texts with their targets and generated texts."""
        lines = [super().format_scores(scores)]
        for sample in scores.get('samples', ()):
            lines += ['', *(f'{name:>9}  {shorten(text)}' for name, text in sample.items())]
        return '\n'.join(lines)
