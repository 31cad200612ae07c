"""Extractive question answering: overlapping windows of documents as rows, and answers as spans of the original text."""

import dataclasses
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.data import records as records_lib
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record, describe
from bert_jax.data.rows import max_text_tokens, pack
from bert_jax.data.text_checks import warn_of_unknown
from bert_jax.data.tokenizer import Tokenizer

# A row's label holds the first and the last position of the answer: first * SPAN_BASE + last.
SPAN_BASE = 2**16


@dataclasses.dataclass(frozen=True)
class QuestionConfig(DataConfig):
    """Questions whose answers are spans of a context. By default, the fields have the names from SQuAD.

    Attributes:
      question: field of the question.
      context: field of the document that holds the answer.
      answers: field of the correct answers, with the lists `text` and `answer_start`.
      id: field of the question's id. If it is empty or missing, the questions are numbered from 0.
      stride: tokens between the starts of two consecutive windows.
      max_question_length: maximum length of a question in tokens; longer questions are truncated.
      paragraphs: maximum number of contexts of one article that are joined to a long context, see `join_contexts`. 1,
        the default, joins none, and 0 joins all.
      title: field of the article's title; only read if contexts are joined.
    """

    length: int = 384
    question: str = 'question'
    context: str = 'context'
    answers: str = 'answers'
    id: str = 'id'
    stride: int = 128
    max_question_length: int = 64
    paragraphs: int = 1
    title: str = 'title'

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 'data', 1, math.inf, 'stride', 'max_question_length')
        check_range(self, 'data', 4, SPAN_BASE - 1, 'length')
        check_range(self, 'data', 0, math.inf, 'paragraphs')
        capacity = max(0, self.length - self.max_question_length - 3)
        if self.stride > capacity:
            cure = 'Lower data.stride' if capacity > 0 else 'Lower data.max_question_length'
            raise UserError(
                f'data.stride={self.stride} would skip text: data.length={self.length} and '
                f'data.max_question_length={self.max_question_length} leave {capacity} tokens of context per row. '
                f'{cure} or raise data.length.'
            )

    def read(self, split: str, limit: int = 0) -> list[Record]:
        if self.paragraphs == 1:
            return super().read(split, limit)
        # Contexts of all questions are joined, also of those that `limit` leaves out.
        return records_lib.choose(join_contexts(super().read(split), self), limit)

    def settings_for_length(self, length: int) -> dict[str, int]:
        question = min(self.max_question_length, length // 2)
        capacity = length - question - 3
        stride = self.stride if self.stride <= capacity else max(1, capacity // 2)
        settings = {'length': length, 'max_question_length': question, 'stride': stride}
        return {key: value for key, value in settings.items() if value != getattr(self, key)}


_PARAGRAPH_BREAK = '\n\n'


def join_contexts(records: Sequence[Record], data: QuestionConfig) -> list[Record]:
    """Replace the context of each question by a long one: that of several paragraphs of the same article.

    The different contexts of the questions about an article are its paragraphs, in the order in which they first appear.
    They are divided into the fewest groups with at most `data.paragraphs` of them, of nearly equal numbers. The paragraphs of a
    group are joined with a blank line between two of them. The positions of the answers are moved accordingly.

    Args:
      records: one question each, with a title and answers.
      data: config that names the fields.

    Raises:
      UserError: if a field is missing or has another format.
    """
    contexts = [record.text(data.context, 'data.context') for record in records]
    titles = [record.text(data.title, 'data.title') for record in records]
    articles: dict[str, dict[str, None]] = {}
    for title, context in zip(titles, contexts, strict=True):
        articles.setdefault(title, {})[context] = None
    # The long context of each paragraph, and the position of the paragraph in it.
    joined: dict[tuple[str, str], tuple[str, int]] = {}
    for title, paragraphs in articles.items():
        for group in _divide([*paragraphs], data.paragraphs):
            text, position = _PARAGRAPH_BREAK.join(group), 0
            for paragraph in group:
                joined[title, paragraph] = text, position
                position += len(paragraph) + len(_PARAGRAPH_BREAK)
    result = []
    for record, title, context in zip(records, titles, contexts, strict=True):
        text, position = joined[title, context]
        spans = _list_answers(record, data.answers)
        answers = [{'text': answer, 'answer_start': start + position} for answer, start in spans]
        fields = {**record.fields, data.context: text, data.answers: answers}
        result.append(record._replace(fields=fields))
    return result


def _divide(paragraphs: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Divide paragraphs into the fewest groups of at most `size`, of nearly equal numbers; 0 means one group."""
    groups = math.ceil(len(paragraphs) / size) if size else 1
    bounds = (len(paragraphs) * i // groups for i in range(groups + 1))
    for start, stop in itertools.pairwise(bounds):
        yield paragraphs[start:stop]


class Window(NamedTuple):
    """The part of a context in one row.

    Attributes:
      row_offset: position in the row of the window's first token.
      start: index in the context of the window's first token.
      stop: index in the context after the window's last token.
      is_max_context: [stop - start] booleans, whether this window is the one with the most context around the token.
    """

    row_offset: int
    start: int
    stop: int
    is_max_context: np.ndarray


class Question(NamedTuple):
    """A question, its context and its correct answers.

    Attributes:
      id: id of the question.
      context: text of the document.
      offsets: [n, 2], start and end of each context token in `context`, in characters; the end is exclusive.
      first_row: index of the row of its first window.
      windows: windows of the context, one for each row from `first_row` on.
      answers: correct answers; empty if the question has none or they are unknown.
    """

    id: str
    context: str
    offsets: np.ndarray
    first_row: int
    windows: Sequence[Window]
    answers: Sequence[str]


def make_rows(
    records: Sequence[Record], data: QuestionConfig, tokenizer: Tokenizer, with_answers: bool
) -> tuple[np.ndarray, list[Question]]:
    """Tokenize questions as rows [CLS] question [SEP] window [SEP].

    If the window contains all of the first answer, the label is `first * SPAN_BASE + last`, where `first` and `last`
    are the positions in the row of the answer's first and last token. Otherwise the label is 0, which points to [CLS].

    Args:
      records: one question each.
      data: config that names the fields.
      tokenizer: tokenizer of the model.
      with_answers: whether to read the answers; if false, all answers are treated as unknown.

    Returns:
      [n, 4 + T] unsigned integers for the n rows, and a `Question` for each record.

    Raises:
      UserError: if a field is missing, an answer does not occur in its context, or a row is too short.
    """
    room = max_text_tokens(data.length, tokenizer, 2)
    max_question_length = min(data.max_question_length, room - 1)  # a token of the context must fit
    unique: dict[str, str] = {}  # questions of one document share its text, which may be long
    texts = (record.text(data.context, 'data.context') for record in records)
    contexts = [unique.setdefault(text, text) for text in texts]
    questions = tokenizer.encode([record.text(data.question, 'data.question').lstrip() for record in records])
    encoded = dict(zip(unique, tokenizer.encode_with_offsets([*unique]), strict=True))
    warn_of_unknown(records, [*questions, *(ids for ids, _ in encoded.values())], tokenizer)
    rows: list[np.ndarray] = []
    result = []
    for i, record in enumerate(records):
        context, question = contexts[i], questions[i][:max_question_length]
        ids, offsets = encoded[context]
        answers, span = ((), None) if not with_answers else _read_answers(record, data, context, offsets)
        capacity = room - len(question)
        row_offset = len(tokenizer.prefix) + len(question) + len(tokenizer.separators)
        windows = _windows(len(ids), capacity, min(data.stride, capacity), row_offset)
        question_id = read_id(record, data, i)
        result.append(Question(question_id, context, offsets, len(rows), windows, answers))
        for window in windows:
            label = 0
            if span is not None and window.start <= span[0] and span[1] < window.stop:
                first, last = (token - window.start + row_offset for token in span)
                label = first * SPAN_BASE + last
            rows.append(pack(question, ids[window.start : window.stop], label, data.length, tokenizer))
    return np.stack(rows), result


def read_id(record: Record, data: QuestionConfig, position: int) -> str:
    """Return the id of a question, or else its `position`; a number becomes text, as in the files of predictions."""
    if data.id not in record.fields:
        return f'{position}'
    value = record.get(data.id)
    return f'{value}' if isinstance(value, int | np.integer) else record.text(data.id)


def _windows(n: int, capacity: int, stride: int, row_offset: int) -> list[Window]:
    """Return windows over n tokens and assign each token to the window with the most context around it.

    The amount of context is scored as in Google's run_squad.py: the number of tokens to the left or to the right of the
    token, whichever is smaller, plus 0.01 times the size of the window.

    Args:
      n: tokens of the context.
      capacity: tokens of context that fit into a row.
      stride: tokens between the starts of two consecutive windows.
      row_offset: position of the context in each row.
    """
    starts = [0]
    while starts[-1] + capacity < n:
        starts.append(starts[-1] + stride)
    spans = [(start, min(start + capacity, n)) for start in starts]
    best_score, best_window = np.full(n, -1.0), np.zeros(n, int)
    for i, (start, stop) in enumerate(spans):
        left = np.arange(stop - start)
        score = np.minimum(left, left[::-1]) + 0.01 * (stop - start)
        better = score > best_score[start:stop]
        best_score[start:stop][better], best_window[start:stop][better] = score[better], i
    return [
        Window(row_offset, start, stop, best_window[start:stop] == i) for i, (start, stop) in enumerate(spans)
    ]


def span_text(question: Question, first: int, last: int) -> str:
    """Return the text of the context tokens from `first` through `last`, without surrounding spaces.

    Combining marks after the last character, which an uncased BERT strips from its tokens, are included.
    """
    context = question.context
    start, stop = int(question.offsets[first, 0]), int(question.offsets[last, 1])
    limit = question.offsets[last + 1, 0] if last + 1 < len(question.offsets) else len(context)
    while stop < limit and unicodedata.category(context[stop])[0] == 'M':
        stop += 1
    return context[start:stop].strip()


def _read_answers(
    record: Record, data: QuestionConfig, context: str, offsets: np.ndarray
) -> tuple[Sequence[str], tuple[int, int] | None]:
    """Read the correct answers and locate the first one in the context.

    If the first answer is not at its `answer_start`, its occurrence nearest to that position is used.

    Returns:
      All answers, and the first and the last token of the first answer; None if it has no tokens.
    """
    answers = _list_answers(record, data.answers)
    if not answers:
        return (), None
    texts, starts = map(list, zip(*answers, strict=True))
    occurrences = [match.start() for match in re.finditer(f'(?={re.escape(texts[0])})', context)]
    if not occurrences:
        raise record.error(f'has the answer {texts[0]!r}, which does not occur in its context')
    start = min(occurrences, key=lambda occurrence: abs(occurrence - starts[0]))
    stop = start + len(texts[0])
    tokens = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start))
    return texts, (int(tokens[0]), int(tokens[-1])) if len(tokens) else None


def read_answer_texts(record: Record, data: QuestionConfig) -> list[str]:
    """Return all answers; none for a question without an answer.

    Raises:
      UserError: if the field is missing or has another format.
    """
    return [text for text, _ in _list_answers(record, data.answers)]


def _list_answers(record: Record, field: str) -> list[tuple[str, int]]:
    """Return the text and the start of each answer, from {"text": [...], "answer_start": [...]} or a list of objects.

    Answers with an empty text, which mark questions without an answer, are left out.

    Raises:
      UserError: if the field is missing or has another format.
    """
    value = record.get(field, 'data.answers')
    try:
        if isinstance(value, Mapping):
            texts, starts = [*value['text']], [*value['answer_start']]
            if isinstance(value['text'], str):
                raise TypeError
        else:
            texts, starts = ([answer[key] for answer in value] for key in ('text', 'answer_start'))
    except (TypeError, KeyError) as e:
        form = '{"text": ["Rome"], "answer_start": [17]}, with positions in characters from 0, or empty lists for no answer'
        raise UserError(
            f'{record.location} has {describe(value)} in the field {field!r}, where data.answers needs answers and their '
            f'positions. Write {form}.'
        ) from e
    if len(texts) != len(starts):
        raise record.error(f'has {len(texts)} entries in text but {len(starts)} in answer_start')
    for name, entries, expected, kind in (
        ('text', texts, str, 'text'),
        ('answer_start', starts, int | np.integer, 'a whole number'),
    ):
        if wrong := [e for e in entries if not isinstance(e, expected) or isinstance(e, bool)]:
            raise record.error(f'has {describe(wrong[0])} in {field}.{name}, where {kind} belongs')
    return [(text, int(start)) for text, start in zip(texts, starts, strict=True) if text.strip()]
