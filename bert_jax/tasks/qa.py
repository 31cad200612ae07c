"""Extractive question answering: predict which span of a text is the answer (Devlin et al. 2019, sections 4.2, 4.3)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import question_answering, squad_metrics
from bert_jax.data.pipeline import Batch
from bert_jax.data.question_answering import SPAN_BASE, Question, QuestionConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.modeling import masks
from bert_jax.modeling.heads import ForQuestionAnswering
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Mistake, TaskOutput


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of question answering: how answers are selected and compared.

    Attributes:
      max_answer_length: maximum length of an answer in tokens.
      n_best: number of ranked answers for each question.
      no_answer: whether a question may have no answer (SQuAD 2.0). The score of no answer is the sum of
        the start and end logits of [CLS], in the window where it is lowest.
      no_answer_threshold: the answer is empty if the score of no answer exceeds the score of the best answer by more
        than this.
      language: language whose rules normalize the answers before they are compared. Empty follows the SQuAD and XQuAD
        scripts, all others follow the MLQA script.
    """

    name: str = 'qa'
    max_answer_length: int = 30
    n_best: int = 20
    no_answer: bool = False
    no_answer_threshold: float = 0.0
    language: squad_metrics.Language = ''

    def __post_init__(self) -> None:
        check_range(self, 'task', 1, float('inf'), 'max_answer_length', 'n_best')


class Task(Downstream):
    """Question answering, with one row for each of the overlapping windows of a document."""

    Data = QuestionConfig
    supports_packing = True
    only_embeds_tokens = True

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        return Examples(*question_answering.make_rows(records, self.data, self.tokenizer, with_labels))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        row = unpack(packed)
        start, end = map(np.int32, divmod(row.label, SPAN_BASE))
        return {**row.inputs(), 'start': start, 'end': end, 'row_weight': np.float32(1)}

    def build_model(self, model_config: Any, rngs: Rngs) -> ForQuestionAnswering:
        return ForQuestionAnswering(model_config, rngs)

    def loss(self, model: ForQuestionAnswering, batch: Batch, key: jax.Array | None) -> TaskOutput:
        logits = model(batch['tokens'], batch['segments'], batch['valid'], key).logits
        is_real = batch['valid']
        if 'starts' in batch:
            logits, is_real = masks.separate_texts(logits, is_real, batch['starts'], self.data.length)
        logits = jnp.where(is_real[..., None], logits, -1e9)
        weights = batch['row_weight']
        starts, ends = (cross_entropy(logits[..., i], batch[k]) for i, k in enumerate(('start', 'end')))
        correct = (logits[..., 0].argmax(-1) == batch['start']) & (logits[..., 1].argmax(-1) == batch['end'])
        return TaskOutput(
            {'span_loss': mean((starts + ends) / 2, weights)},
            {'span_accuracy': mean(correct, weights)},
            {'logits': logits},
        )

    def predictions(
        self, outputs: dict[str, np.ndarray], metadata: Sequence[Question]
    ) -> list[dict[str, Any]]:
        """Return the answer to each question.

        Returns:
          Dicts of the answer ('' for none) and its probability, `no_answer_score` (the score of no answer minus the score
          of the best answer), and the `n_best` answers with their probabilities, which sum to 1.
        """
        return [prediction for _, prediction in self._answer_all(outputs, metadata)]

    def gold(self, record: Record) -> list[str]:
        """Return all correct answers; none for a question without an answer."""
        return question_answering.read_answer_texts(record, self.data)

    def mistake(self, gold: Sequence[str], prediction: dict[str, Any]) -> Mistake | None:
        exact_match, _ = self._score(prediction['prediction'], gold)
        if exact_match:
            return None
        answer, probability = prediction['prediction'] or '(no answer)', prediction['probability']
        expected = ' or '.join(dict.fromkeys(gold)) or '(no answer)'
        return Mistake(probability, f'{answer} instead of {expected} ({probability:.1%})')

    def _answer_all(
        self, outputs: dict[str, np.ndarray], questions: Sequence[Question]
    ) -> list[tuple[Question, dict[str, Any]]]:
        """Return the questions whose windows were all evaluated, with their predictions."""
        logits = outputs['logits']
        answered = []
        for question in questions:
            stop = question.first_row + len(question.windows)
            if stop <= len(logits):
                answered.append((question, self._answer(question, logits[question.first_row : stop])))
        return answered

    def _answer(self, question: Question, logits: np.ndarray) -> dict[str, Any]:
        """Choose the answer to one question from the start and end logits of its windows, [windows, T, 2]."""
        c = self.config
        spans: list[tuple[float, int, int]] = []
        for window, window_logits in zip(question.windows, logits, strict=True):
            spans += best_spans(window_logits, window, c.n_best, c.max_answer_length)
        texts: dict[str, float] = {}
        for score, first, last in sorted(spans, reverse=True):
            if text := question_answering.span_text(question, first, last):
                texts.setdefault(text, score)
            if len(texts) == c.n_best:
                break
        no_answer = float(logits[:, 0].sum(-1).min())
        best = max(texts.values(), default=-np.inf)
        answer = next(iter(texts), '')
        if c.no_answer:
            texts[''] = no_answer
            if no_answer - best > c.no_answer_threshold:
                answer = ''
        ranked = sorted(texts.items(), key=lambda item: -item[1])
        weights = np.exp([score - ranked[0][1] for _, score in ranked]) if ranked else np.zeros(0)
        probabilities = {
            text: round(float(w / weights.sum()), 6) for (text, _), w in zip(ranked, weights, strict=True)
        }
        return {
            'prediction': answer,
            'probability': probabilities.get(answer, 0.0),
            'no_answer_score': no_answer - best if np.isfinite(best) else 1e9,
            'n_best': [{'text': text, 'probability': p} for text, p in probabilities.items()],
        }

    def scores(self, outputs: dict[str, np.ndarray], metadata: Sequence[Question]) -> dict[str, Any]:
        """Compute exact match and F1 in percent, as the official scripts do.

        With `no_answer`, also compute the best scores that any `no_answer_threshold` gives on these questions, and the
        threshold of each.
        """
        answered = self._answer_all(outputs, metadata)
        if not answered:
            raise UserError(
                f'No question has all of its windows in the first {len(outputs["logits"])} evaluation rows. Raise '
                'train.eval_rows.'
            )
        scores = np.array([self._score(p['prediction'], q.answers) for q, p in answered])
        exact, f1 = 100 * scores.mean(0)
        result: dict[str, Any] = {'exact_match': float(exact), 'f1': float(f1), 'questions': len(answered)}
        if self.config.no_answer:
            result |= self._no_answer_scores(answered, scores)
        return result

    def _score(self, predicted: str, answers: Sequence[str]) -> tuple[float, float]:
        """Return exact match and F1 of one answer, from 0 to 1."""
        return squad_metrics.score(predicted, answers, self.config.no_answer, self.config.language)

    def _no_answer_scores(
        self, answered: Sequence[tuple[Question, dict[str, Any]]], scores: np.ndarray
    ) -> dict[str, Any]:
        """Compute the additional scores of a data set in which some questions have no answer.

        Args:
          answered: questions with their predictions.
          scores: exact match and F1 of each question, [questions, 2].

        Returns:
          The mean scores of the questions with an answer and of those without; the best values that any
          `no_answer_threshold` gives for exact match and for F1, and these thresholds.
        """
        has_answer = np.array([bool(q.answers) for q, _ in answered])
        result: dict[str, Any] = {}
        for name, selected in (('has_answer', has_answer), ('no_answer', ~has_answer)):
            if selected.any():
                exact, f1 = scores[selected].mean(0) * 100
                result |= {f'{name}_exact_match': float(exact), f'{name}_f1': float(f1)}
        best = [next((b['text'] for b in p['n_best'] if b['text']), '') for _, p in answered]
        gaps = np.array([p['no_answer_score'] for _, p in answered])
        order = np.argsort(gaps, kind='stable')
        for i, name in enumerate(('exact_match', 'f1')):
            # The official threshold search counts any text as wrong for a question without an answer, even if
            # normalization would leave nothing of it, such as '!'.
            if_answered = [
                self._score(b, q.answers)[i] if q.answers else not b
                for b, (q, _) in zip(best, answered, strict=True)
            ]
            # Entry n is the total score if the n questions with the smallest gaps are answered.
            gains = (np.array(if_answered, float) - ~has_answer)[order]
            totals = np.cumsum(np.r_[(~has_answer).sum(), gains])
            top = int(totals.argmax())
            result[f'best_{name}'] = 100 * float(totals[top]) / len(answered)
            result[f'best_{name}_threshold'] = float(gaps[order][top - 1]) if top else float(gaps.min() - 1)
        return result


def best_spans(
    logits: np.ndarray, window: question_answering.Window, n: int, max_length: int
) -> list[tuple[float, int, int]]:
    """Find the n best spans of one window, by a joint search over start and end.

    Args:
      logits: [T, 2], start and end logits of each token of the row.
      window: the row's part of the context; spans start only at tokens for which `is_max_context` holds.
      n: number of spans.
      max_length: maximum length of a span in tokens.

    Returns:
      The score of each span (the sum of both logits), and the indices in the context of its first and last token.
    """
    size = window.stop - window.start
    if not size:
        return []
    starts, ends = logits[window.row_offset : window.row_offset + size].T
    starts = np.where(window.is_max_context, starts, -np.inf)
    lengths = np.arange(min(max_length, size))
    padded = np.concatenate([ends, np.full(len(lengths) - 1, -np.inf)])
    sums = starts[:, None] + padded[np.arange(size)[:, None] + lengths]  # [start, length - 1]
    n = min(n, sums.size)
    selected = np.argpartition(-sums, n - 1, axis=None)[:n]
    return [
        (float(sums[first, extra]), window.start + int(first), window.start + int(first + extra))
        for first, extra in zip(*np.unravel_index(selected, sums.shape), strict=True)
        if np.isfinite(sums[first, extra])
    ]
