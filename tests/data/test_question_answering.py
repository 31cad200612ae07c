"""Questions: windows that cover the context, answers at the right tokens, text cut from the original."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import question_answering
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.question_answering import SPAN, QuestionConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack


def record(context, question='w1', text=None, start=0):
    answers = {'text': [] if text is None else [text], 'answer_start': [] if text is None else [start]}
    return Record('example 0', {'id': 'q', 'context': context, 'question': question, 'answers': answers})


def rows(record, words, length=12, stride=3, question_length=4):
    data = QuestionConfig('x.json', length=length, stride=stride, question_length=question_length)
    out, (question,) = question_answering.rows([record], data, words, True)
    return [unpack(row) for row in out], question


def numbered(n):
    return ' '.join(f'w{i}' for i in range(100, 100 + n))


@given(st.integers(0, 60), st.integers(1, 3), st.integers(12, 20))
def test_windows_cover_the_context(words, n, asked, length):
    found, question = rows(record(numbered(n), ' '.join(['w1'] * asked)), words, length, stride=length - 11)
    assert len(found) == len(question.windows)
    best = np.zeros(n, int)
    for row, window in zip(found, question.windows, strict=True):
        inside = row.tokens[window.first : window.first + window.stop - window.start]
        assert [words.token(t) for t in inside] == [
            f'w{i}' for i in range(100 + window.start, 100 + window.stop)
        ]
        assert row.first == window.first == asked + 2
        assert row.tokens[row.length - 1] == words.sep
        best[window.start : window.stop] += window.best
    assert (best == 1).all(), 'each token has its widest context in one window'


def test_a_token_is_best_where_it_has_most_around_it(words):
    _, question = rows(record(numbered(10)), words, length=12, stride=4)
    assert [(w.start, w.stop) for w in question.windows] == [(0, 8), (4, 10)]
    # Tokens 4 to 7 are in both: context of 3, 2, 1, 0 in the first and of 0, 1, 2, 2 in the second.
    assert question.windows[0].best.tolist() == [True] * 6 + [False] * 2
    assert question.windows[1].best.tolist() == [False] * 2 + [True] * 4


@given(st.integers(0, 39), st.integers(1, 6))
def test_the_answer_is_where_a_window_holds_it_whole(words, first, size):
    size = min(size, 40 - first)
    context = numbered(40)
    text = ' '.join(f'w{i}' for i in range(100 + first, 100 + first + size))
    found, question = rows(record(context, text=text, start=context.index(text)), words, stride=2)
    held = 0
    for row, window in zip(found, question.windows, strict=True):
        start, end = divmod(row.label, SPAN)
        if window.start <= first and first + size <= window.stop:
            assert [words.token(t) for t in row.tokens[start : end + 1]] == text.split()
            held += 1
        else:
            assert (start, end) == (0, 0)
    assert held >= 1
    assert question.answers == [text]


@pytest.mark.parametrize('context', ['Das  w1\tist\nÜber-w2!', '台北在 w1 台灣。', 'مرحبا w1 بالعالم'])
def test_offsets_give_the_original_text(words, context):
    _, question = rows(record(context), words)
    pieces = [context[a:b] for a, b in question.offsets]
    assert 'w1' in pieces
    assert all(p.strip() for p in pieces)


def test_an_answer_that_is_elsewhere_is_named(words):
    with pytest.raises(UserError, match="example 0 has the answer 'w200', which its context has not"):
        rows(record(numbered(5), text='w200', start=0), words)


@pytest.mark.parametrize(('start', 'token'), [(0, 0), (2, 0), (5, 2), (99, 2)])
def test_a_start_that_is_off_means_the_nearest_occurrence(words, start, token):
    (row,), question = rows(record('w1 w2 w1', text='w1', start=start), words)
    first = question.windows[0].first + token
    assert divmod(row.label, SPAN) == (first, first)


def test_an_answer_keeps_marks_that_the_tokenizer_strips():
    accents = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, 'cafe', 'au', 'lait'])
    _, question = rows(record('un cafe\u0301 au lait'), accents)
    assert question_answering.cut(question, 1, 1) == 'cafe\u0301'
    assert question_answering.cut(question, 1, 2) == 'cafe\u0301 au'


def test_a_long_context_takes_memory_in_proportion(words):
    """200,000 tokens: a table of windows and tokens would have 10^10 cells."""
    found = question_answering._windows(200_000, 9, 4, 2)
    assert sum(w.best.sum() for w in found) == 200_000


def test_a_stride_that_skips_text_is_refused():
    with pytest.raises(UserError, match=r'data\.stride=128 would skip text'):
        QuestionConfig('x.json', length=128)


@pytest.mark.parametrize(
    'answers',
    [
        None,
        'x',
        3,
        [{'text': 'w1', 'answer_start': 0}],
        {'text': ['w1']},
        {'text': ['w1'], 'answer_start': []},
    ],
)
def test_answers_of_another_shape_are_named(words, answers):
    found = Record('line 2,', {'id': 'a', 'context': 'w1 w2', 'question': 'w3', 'answers': answers})
    with pytest.raises(UserError, match='line 2, has (answers that are no lists|1 answers but 0 places)'):
        rows(found, words)
