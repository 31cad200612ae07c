"""Write one text of another: a summary, a translation (Lewis et al. 2020, section 3.3 and 3.4)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import seq2seq
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.seq2seq import Pair, PairConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import beam_search, decoding, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Result


@dataclasses.dataclass(frozen=True)
class Config:
    """How texts are written.

    Attributes:
      prefix: for a decoder alone, such as GPT: the text stands before its target in one row, and the loss is of the
        target (Lewis et al. 2020, section 4.1); otherwise an encoder reads it.
      beams: of the search; 1 always takes the likeliest token.
      length_penalty: of the search, see `beam_search.search`.
      chunk: as of the task denoise.
      samples: so many texts are shown with the scores.
    """

    name: str = 'seq2seq'
    prefix: bool = False
    beams: int = 4
    length_penalty: float = 1.0
    chunk: int = 0
    samples: int = 5

    def __post_init__(self) -> None:
        within(self, 'task', 1, math.inf, 'beams')
        within(self, 'task', 0, math.inf, 'chunk', 'samples')


class Task(Downstream):
    Data = PairConfig

    def __init__(self, config: Config, data: PairConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        return Examples(*seq2seq.rows(found, self.data, self.tokenizer, labelled))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        source, target = unpack(packed[0]), unpack(packed[1])
        tokens, valid = source.tokens[: self.data.length], source.inputs()['valid'][: self.data.length]
        labels = target.tokens[: self.data.target_length or self.data.length]
        weights = (np.arange(len(labels)) < target.length).astype(np.float32)
        if self.config.prefix:  # [CLS] text [SEP] target [SEP]
            n, more = source.length, labels[1 : target.length]
            joined = np.full(len(tokens) + len(labels) - 1, self.tokenizer.pad, np.int32)
            joined[:n], joined[n : n + len(more)] = tokens[:n], more
            places = np.arange(len(joined) - 1)
            weights = ((places >= n - 1) & (places < n - 1 + len(more))).astype(np.float32)
            before, labels = joined[:-1], joined[1:]
        else:
            before = np.concatenate([[self.tokenizer.sep], labels[:-1]]).astype(np.int32)
        return {
            'tokens': tokens,
            'valid': valid,
            'targets': before,
            'labels': labels,
            'weights': weights,
            'row_weight': np.float32(1),
        }

    def module(self, model: Any, rngs: Rngs) -> BartForSeq2Seq | GptForCausalLM:
        wanted = 'gpt' if self.config.prefix else 'bart'
        if model.name != wanted:
            raise UserError(
                f'With task.prefix={self.config.prefix} the model is a {wanted}, not a {model.name}: set task.prefix '
                '(true for gpt, false for bart), or init.checkpoint.'
            )
        text, target = self.data.length, self.data.target_length or self.data.length
        if self.config.prefix:
            model.check_length(text + target, 'data.length or data.target_length')
            return GptForCausalLM(model, rngs)
        model.check_length(text)
        model.check_length(target, 'data.target_length')
        return BartForSeq2Seq(model, rngs)

    def loss(self, model: Any, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        if self.config.prefix:
            hidden = model.gpt(batch['targets'], key=key).hidden_states[-1]
        else:
            hidden = model.bart(batch['tokens'], batch['targets'], batch['valid'], key).hidden_states[-1]
        weights = batch['weights'] * batch['row_weight'][:, None]
        losses, correct = model.token_loss(hidden, batch['labels'], self.config.chunk)
        return Result({'target_loss': mean(losses, weights)}, {'target_accuracy': mean(correct, weights)}, {})

    def written(self, model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """[B, N] tokens that the model writes of each row, as far as a target may go."""
        text, valid = batch['tokens'], batch['valid']
        if self.config.prefix:
            begin = decoding.aligned(text, valid)
        else:
            first = jnp.full((len(text), 1), self.tokenizer.sep, jnp.int32)
            begin = first, jnp.ones(first.shape, bool)
        tokens = beam_search.written(
            *module.split(model),
            *begin,
            self.data.target_length or self.data.length,
            end=self.tokenizer.sep,
            source=() if self.config.prefix else (text, valid),
            beams=self.config.beams,
            length_penalty=self.config.length_penalty,
        )
        return {'written': tokens}

    def flops(self, model: Any, batch: Batch) -> float:
        tokens, targets = np.count_nonzero(batch['valid']), batch['weights'].sum()
        lengths = batch['valid'].shape[1], batch['weights'].shape[1]
        head = targets * 2 * model.width * model.vocab_size
        if self.config.prefix:
            return model.read_flops(tokens + targets, lengths[1]) + head
        return model.seq2seq_flops(tokens, lengths[0], targets, lengths[1]) + head

    def predictions(self, outputs: dict[str, np.ndarray], about: Any) -> list[dict[str, Any]]:
        return [{'text': text} for text in self._texts(outputs['written'])]

    def _texts(self, rows: np.ndarray) -> list[str]:
        return [self.tokenizer.decode(decoding.until(row, self.tokenizer.sep)).strip() for row in rows]

    def scores(self, outputs: dict[str, np.ndarray], about: Sequence[Pair]) -> dict[str, Any]:
        """Of texts that were written: ROUGE (F1, stemmed: English), BLEU and chrF, in percent, and the share that is exact."""
        if 'written' not in outputs:
            return {}
        import sacrebleu
        from rouge_score.rouge_scorer import RougeScorer

        texts = self._texts(outputs['written'])
        right = [pair.target for pair in about[: len(texts)]]
        kinds = ['rouge1', 'rouge2', 'rougeL', 'rougeLsum']
        scorer = RougeScorer(kinds, use_stemmer=True)
        each = [scorer.score(target, text) for target, text in zip(right, texts, strict=True)]
        shown = zip(about, texts, strict=False)
        return {
            **{kind: 100 * float(np.mean([s[kind].fmeasure for s in each])) for kind in kinds},
            'bleu': sacrebleu.corpus_bleu(texts, [right]).score,
            'chrf': sacrebleu.corpus_chrf(texts, [right]).score,
            'exact_match': float(np.mean([a == b.strip() for a, b in zip(texts, right, strict=True)])),
            'samples': [
                {'text': pair.text, 'target': pair.target, 'written': text}
                for _, (pair, text) in zip(range(self.config.samples), shown, strict=False)
            ],
        }

    def describe(self, scores: dict[str, Any]) -> str:
        """A table of the scores, and samples."""
        lines = [super().describe(scores)]
        for sample in scores.get('samples', ()):
            lines += ['', *(f'{name:>8}  {_short(text)}' for name, text in sample.items())]
        return '\n'.join(lines)


def _short(text: str, most: int = 200) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= most else text[:most] + ' ...'
