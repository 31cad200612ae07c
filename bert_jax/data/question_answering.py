"""Questions on documents: overlapping windows as rows, and answers as spans of the original text."""

import dataclasses
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import pack, room
from bert_jax.data.tokenizer import Tokenizer

# Start and end of the answer share a row's label: start * SPAN + end.
SPAN = 2**16


@dataclasses.dataclass(frozen=True)
class QuestionConfig(DataConfig):
    """Questions whose answers are spans of a context, in the fields of SQuAD.

    Attributes:
      question, context, answers: fields; `answers` holds the lists `text` and `answer_start`.
      id: the field that names a question; empty counts them.
      stride: a window begins so many tokens after the one before.
      question_length: longer questions are cut.
    """

    length: int = 384
    question: str = 'question'
    context: str = 'context'
    answers: str = 'answers'
    id: str = 'id'
    stride: int = 128
    question_length: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, 'data', 1, math.inf, 'stride', 'question_length')
        within(self, 'data', 4, SPAN - 1, 'length')
        if self.stride > self.length - self.question_length - 3:
            raise UserError(
                f'data.stride={self.stride} would skip text: beside data.question_length={self.question_length} '
                f'a row of data.length={self.length} holds {max(0, self.length - self.question_length - 3)} tokens of context.'
            )


class Window(NamedTuple):
    """A row's view of a context.

    Attributes:
      first: position in the row of the window's first context token.
      start, stop: which tokens of the context it holds.
      best: [stop - start] booleans, whether a token has its widest context in this window.
    """

    first: int
    start: int
    stop: int
    best: np.ndarray


class Question(NamedTuple):
    """One question.

    Attributes:
      id: its name.
      context: the text.
      offsets: [n, 2], where each token of the context begins and ends in the text.
      row: of its first window.
      windows: its rows, in order.
      answers: right answers; none says that there is none, or that they are not known.
    """

    id: str
    context: str
    offsets: np.ndarray
    row: int
    windows: Sequence[Window]
    answers: Sequence[str]


def rows(
    found: Sequence[Record], data: QuestionConfig, tokenizer: Tokenizer, with_answers: bool
) -> tuple[np.ndarray, list[Question]]:
    """Rows [CLS] question [SEP] window [SEP] of questions.

    The label is the span of the first answer, start * `SPAN` + end, in a window that holds it whole, and 0,
    which is [CLS], in one that does not.

    Returns:
      [n, 4 + T] unsigned integers, and a `Question` for each record.

    Raises:
      UserError: for a missing field, or an answer that is not where it says.
    """
    contexts = [r.text(data.context) for r in found]
    asked = tokenizer.encode([r.text(data.question).lstrip() for r in found])
    unique = list(dict.fromkeys(contexts))
    encoded = dict(zip(unique, tokenizer.encode_with_offsets(unique), strict=True))
    out: list[np.ndarray] = []
    questions = []
    for i, record in enumerate(found):
        context, question = contexts[i], asked[i][: data.question_length]
        ids, offsets = encoded[context]
        answers, span = ((), None) if not with_answers else _answers(record, data, context, offsets)
        free = room(data.length, tokenizer, 2) - len(question)
        windows = _windows(len(ids), free, min(data.stride, free), 1 + len(question) + len(tokenizer.between))
        name = str(record.fields.get(data.id, i)) if data.id else str(i)
        questions.append(Question(name, context, offsets, len(out), windows, answers))
        for w in windows:
            inside = span is not None and w.start <= span[0] and span[1] < w.stop
            first, last = (p - w.start + w.first for p in span) if span is not None and inside else (0, 0)
            out.append(pack(question, ids[w.start : w.stop], first * SPAN + last, data.length, tokenizer))
    return np.stack(out), questions


def _windows(n: int, room: int, stride: int, first: int) -> list[Window]:
    """Windows over n tokens; each token has its widest context in one of them (Google's run_squad)."""
    starts = [0]
    while starts[-1] + room < n:
        starts.append(starts[-1] + stride)
    spans = [(s, min(s + room, n)) for s in starts]
    widest, best = np.full(n, -1.0), np.zeros(n, int)
    for i, (start, stop) in enumerate(spans):
        place = np.arange(stop - start)
        around = np.minimum(place, place[::-1]) + 0.01 * (stop - start)
        better = around > widest[start:stop]
        widest[start:stop][better], best[start:stop][better] = around[better], i
    return [Window(first, s, e, best[s:e] == i) for i, (s, e) in enumerate(spans)]


def cut(question: Question, first: int, last: int) -> str:
    """The text of a span of tokens, both ends included, without spaces around it.

    A mark that the tokenizer stripped from the last character, as an uncased BERT strips accents, belongs to it.
    """
    context = question.context
    start, stop = int(question.offsets[first, 0]), int(question.offsets[last, 1])
    after = question.offsets[last + 1, 0] if last + 1 < len(question.offsets) else len(context)
    while stop < after and unicodedata.category(context[stop])[0] == 'M':
        stop += 1
    return context[start:stop].strip()


def _answers(
    record: Record, data: QuestionConfig, context: str, offsets: np.ndarray
) -> tuple[Sequence[str], tuple[int, int] | None]:
    """All right answers, and the tokens of the first where it is nearest to its `answer_start`, both ends included."""
    found = record.get(data.answers)
    try:
        texts, starts = [str(t) for t in found['text']], [int(s) for s in found['answer_start']]
    except (TypeError, KeyError, ValueError) as e:
        raise UserError(
            f'{record.where} has answers that are no lists {{"text": [...], "answer_start": [...]}}: mend or remove it.'
        ) from e
    if len(texts) != len(starts):
        raise UserError(
            f'{record.where} has {len(texts)} answers but {len(starts)} places: mend or remove it.'
        )
    if not texts:
        return (), None
    places = [m.start() for m in re.finditer(f'(?={re.escape(texts[0])})', context)]
    if not places:
        raise UserError(
            f'{record.where} has the answer {texts[0]!r}, which its context has not: mend or remove it.'
        )
    start = min(places, key=lambda place: abs(place - starts[0]))
    stop = start + len(texts[0])
    touched = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start))
    return texts, (int(touched[0]), int(touched[-1])) if len(touched) else None
