"""The span of a document that answers a question (Devlin et al. 2019, sections 4.2 and 4.3)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import question_answering
from bert_jax.data import squad_metrics as answers_lib
from bert_jax.data.pipeline import Batch
from bert_jax.data.question_answering import SPAN, Question, QuestionConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import ForQuestionAnswering
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Result


@dataclasses.dataclass(frozen=True)
class Config:
    """How answers are chosen.

    Attributes:
      answer_length: the most tokens of an answer.
      n_best: how many answers of a question are ranked.
      no_answer: whether a question may have none (SQuAD 2.0): then the score of [CLS] stands for it.
      threshold: it has none if the score of [CLS] is above that of the best answer by more than this.
      language: how answers are compared: empty as by the scripts of SQuAD and XQuAD, else as by that of MLQA.
    """

    name: str = 'qa'
    answer_length: int = 30
    n_best: int = 20
    no_answer: bool = False
    threshold: float = 0.0
    language: answers_lib.Language = ''

    def __post_init__(self) -> None:
        within(self, 'task', 1, float('inf'), 'answer_length', 'n_best')


class Task(Downstream):
    Data = QuestionConfig

    def __init__(self, config: Config, data: QuestionConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        return Examples(*question_answering.rows(found, self.data, self.tokenizer, labelled))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        start, end = divmod(row.label, SPAN)
        return {
            **row.inputs(),
            'start': np.int32(start),
            'end': np.int32(end),
            'row_weight': np.float32(1),
        }

    def module(self, model: Any, rngs: Rngs) -> ForQuestionAnswering:
        return ForQuestionAnswering(model, rngs)

    def loss(self, model: ForQuestionAnswering, batch: dict[str, jax.Array], key: jax.Array | None) -> Result:
        logits = model(batch['tokens'], batch['segments'], batch['valid'], key).logits
        logits = jnp.where(batch['valid'][..., None], logits, -1e9)
        weight = batch['row_weight']
        starts, ends = (cross_entropy(logits[..., i], batch[k]) for i, k in enumerate(('start', 'end')))
        right = (logits[..., 0].argmax(-1) == batch['start']) & (logits[..., 1].argmax(-1) == batch['end'])
        return Result(
            {'span_loss': mean((starts + ends) / 2, weight)},
            {'span_accuracy': mean(right, weight)},
            {'logits': logits},
        )

    def flops(self, model: Any, batch: Batch) -> float:
        return model.read_flops(batch['valid'].sum(), batch['valid'].shape[1])

    def predictions(self, outputs: dict[str, np.ndarray], about: Sequence[Question]) -> list[dict[str, Any]]:
        """For each question its answer ('' for none), the n best with their probabilities, and by how much no
        answer scores above the best one."""
        return [prediction for _, prediction in self._answered(outputs, about)]

    def _answered(
        self, outputs: dict[str, np.ndarray], about: Sequence[Question]
    ) -> list[tuple[Question, dict[str, Any]]]:
        """Each question all of whose windows were evaluated, with its prediction."""
        n = len(outputs['logits'])
        whole = [q for q in about if q.row + len(q.windows) <= n]
        return [(q, self._answer(q, outputs['logits'][q.row : q.row + len(q.windows)])) for q in whole]

    def _answer(self, question: Question, logits: np.ndarray) -> dict[str, Any]:
        c = self.config
        spans: list[tuple[float, int, int]] = []
        for window, scores in zip(question.windows, logits, strict=True):
            spans += best_spans(scores, window, c.n_best, c.answer_length)
        texts: dict[str, float] = {}
        for score, first, last in sorted(spans, reverse=True):
            if text := question_answering.cut(question, first, last):
                texts.setdefault(text, score)
            if len(texts) == c.n_best:
                break
        nothing = float(logits[:, 0].sum(-1).min())
        best = max(texts.values(), default=-np.inf)
        answer = next(iter(texts), '')
        if c.no_answer:
            texts[''] = nothing
            if nothing - best > c.threshold:
                answer = ''
        ranked = sorted(texts.items(), key=lambda item: -item[1])
        weights = np.exp([score - ranked[0][1] for _, score in ranked]) if ranked else np.zeros(0)
        return {
            'id': question.id,
            'answer': answer,
            'no_answer_score': nothing - best if np.isfinite(best) else 1e9,
            'n_best': [
                {'text': text, 'probability': round(float(w / weights.sum()), 6)}
                for (text, _), w in zip(ranked, weights, strict=True)
            ],
        }

    def scores(self, outputs: dict[str, np.ndarray], about: Sequence[Question]) -> dict[str, Any]:
        """Exact match and F1 in percent, as the official scripts count them.

        With `no_answer` also the best threshold on these questions and the scores that it would give.
        """
        found = self._answered(outputs, about)
        if not found:
            raise UserError('There is no whole question among the rows: set train.eval_rows higher.')
        each = np.array([self._score(p['answer'], q.answers) for q, p in found])
        exact, f1 = 100 * each.mean(0)
        result: dict[str, Any] = {'exact_match': float(exact), 'f1': float(f1), 'questions': len(found)}
        if self.config.no_answer:
            result |= self._with_none(found, each)
        return result

    def _score(self, predicted: str, answers: Sequence[str]) -> tuple[float, float]:
        return answers_lib.score(predicted, answers, self.config.no_answer, self.config.language)

    def _with_none(
        self, found: Sequence[tuple[Question, dict[str, Any]]], each: np.ndarray
    ) -> dict[str, Any]:
        """Scores by whether there is an answer, and at the best threshold."""
        has = np.array([bool(q.answers) for q, _ in found])
        result: dict[str, Any] = {}
        for name, chosen in (('has_answer', has), ('no_answer', ~has)):
            if chosen.any():
                part = each[chosen].mean(0) * 100
                result |= {f'{name}_exact_match': float(part[0]), f'{name}_f1': float(part[1])}
        best = [next((b['text'] for b in p['n_best'] if b['text']), '') for _, p in found]
        gaps = np.array([p['no_answer_score'] for _, p in found])
        order = np.argsort(gaps, kind='stable')
        for i, name in enumerate(('exact_match', 'f1')):
            # Where there is none, any text is wrong here, also one of punctuation alone.
            gains = [
                self._score(b, q.answers)[i] if q.answers else not b
                for b, (q, _) in zip(best, found, strict=True)
            ]
            # Answering the questions up to a gap, and none beyond it.
            totals = np.cumsum(np.r_[(~has).sum(), (np.array(gains, float) - ~has)[order]])
            top = int(totals.argmax())
            result[f'best_{name}'] = 100 * float(totals[top]) / len(found)
            result[f'best_{name}_threshold'] = float(gaps[order][top - 1]) if top else float(gaps.min() - 1)
        return result


def best_spans(
    logits: np.ndarray, window: question_answering.Window, n: int, longest: int
) -> list[tuple[float, int, int]]:
    """The n best spans of one window, with start and end chosen together.

    Args:
      logits: [T, 2], of start and end.
      window: which tokens of the context it holds; a start must have its widest context here.
      n: how many.
      longest: tokens, at most.

    Returns:
      Scores (the sum of both logits) with the first and the last token of the context.
    """
    size = window.stop - window.start
    if not size:
        return []
    starts, ends = logits[window.first : window.first + size].T
    starts = np.where(window.best, starts, -np.inf)
    reach = np.arange(min(longest, size))
    padded = np.concatenate([ends, np.full(len(reach) - 1, -np.inf)])
    sums = starts[:, None] + padded[np.arange(size)[:, None] + reach]
    n = min(n, sums.size)
    chosen = np.argpartition(-sums, n - 1, axis=None)[:n]
    firsts, lengths = np.unravel_index(chosen, sums.shape)
    return [
        (float(sums[a, b]), window.start + int(a), window.start + int(a + b))
        for a, b in zip(firsts, lengths, strict=True)
        if np.isfinite(sums[a, b])
    ]
