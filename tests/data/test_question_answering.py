"""Question answering: windows cover the context, labels point to the answer, spans map back to the text."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import question_answering
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.question_answering import SPAN_BASE, QuestionConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack


def make_record(context, question='w1', text=None, start=0):
    answers = {'text': [] if text is None else [text], 'answer_start': [] if text is None else [start]}
    return Record('example 0', {'id': 'q', 'context': context, 'question': question, 'answers': answers})


def make_rows(record, word_tokenizer, length=12, stride=3, max_question_length=4):
    data = QuestionConfig('x.json', length=length, stride=stride, max_question_length=max_question_length)
    out, (question,) = question_answering.make_rows([record], data, word_tokenizer, True)
    return [unpack(row) for row in out], question


def numbered_words(n):
    return ' '.join(f'w{i}' for i in range(100, 100 + n))


@pytest.mark.parametrize('length', [8, 16, 64, 130, 200, 512])
def test_settings_for_a_length_are_valid(length):
    settings = QuestionConfig().settings_for_length(length)
    assert QuestionConfig(**settings).length == length
    assert (len(settings) == 1) == (length in (200, 512))  # to which the other defaults fit


@given(st.integers(0, 60), st.integers(1, 3), st.integers(12, 20))
def test_windows_cover_the_context(word_tokenizer, n, question_length, length):
    found, question = make_rows(
        make_record(numbered_words(n), ' '.join(['w1'] * question_length)),
        word_tokenizer,
        length,
        stride=length - 11,
    )
    assert len(found) == len(question.windows)
    count = np.zeros(n, int)
    for row, window in zip(found, question.windows, strict=True):
        inside = row.tokens[window.row_offset : window.row_offset + window.stop - window.start]
        assert [word_tokenizer.token(t) for t in inside] == [
            f'w{i}' for i in range(100 + window.start, 100 + window.stop)
        ]
        assert row.first_length == window.row_offset == question_length + 2
        assert row.tokens[row.length - 1] == word_tokenizer.sep
        count[window.start : window.stop] += window.is_max_context
    assert (count == 1).all(), 'each token has its maximum context in exactly one window'


def test_maximum_context_is_in_the_window_with_most_tokens_around(word_tokenizer):
    _, question = make_rows(make_record(numbered_words(10)), word_tokenizer, length=12, stride=4)
    assert [(w.start, w.stop) for w in question.windows] == [(0, 8), (4, 10)]
    # Tokens 4 to 7 are in both windows, with 3, 2, 1, 0 tokens around them in the first and 0, 1, 2, 2 in the second.
    assert question.windows[0].is_max_context.tolist() == [True] * 6 + [False] * 2
    assert question.windows[1].is_max_context.tolist() == [False] * 2 + [True] * 4


@given(st.integers(0, 39), st.integers(1, 6))
def test_label_is_the_answer_in_windows_that_contain_it(word_tokenizer, first, size):
    size = min(size, 40 - first)
    context = numbered_words(40)
    text = ' '.join(f'w{i}' for i in range(100 + first, 100 + first + size))
    found, question = make_rows(
        make_record(context, text=text, start=context.index(text)), word_tokenizer, stride=2
    )
    containing = 0
    for row, window in zip(found, question.windows, strict=True):
        start, end = divmod(row.label, SPAN_BASE)
        if window.start <= first and first + size <= window.stop:
            assert [word_tokenizer.token(t) for t in row.tokens[start : end + 1]] == text.split()
            containing += 1
        else:
            assert (start, end) == (0, 0)
    assert containing >= 1
    assert question.answers == [text]


@pytest.mark.parametrize('context', ['Das  w1\tist\nÜber-w2!', '台北在 w1 台灣。', 'مرحبا w1 بالعالم'])
def test_offsets_map_to_the_original_text(word_tokenizer, context):
    _, question = make_rows(make_record(context), word_tokenizer)
    pieces = [context[a:b] for a, b in question.offsets]
    assert 'w1' in pieces
    assert all(p.strip() for p in pieces)


def test_answer_missing_from_the_context_raises(word_tokenizer):
    with pytest.raises(
        UserError, match="example 0 has the answer 'w200', which does not occur in its context"
    ):
        make_rows(make_record(numbered_words(5), text='w200', start=0), word_tokenizer)


@pytest.mark.parametrize(('start', 'token'), [(0, 0), (2, 0), (5, 2), (99, 2)])
def test_wrong_answer_start_selects_the_nearest_occurrence(word_tokenizer, start, token):
    (row,), question = make_rows(make_record('w1 w2 w1', text='w1', start=start), word_tokenizer)
    first = question.windows[0].row_offset + token
    assert divmod(row.label, SPAN_BASE) == (first, first)


def test_span_text_keeps_stripped_accents():
    accents = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, 'cafe', 'au', 'lait'])
    _, question = make_rows(make_record('un cafe\u0301 au lait'), accents)
    assert question_answering.span_text(question, 1, 1) == 'cafe\u0301'
    assert question_answering.span_text(question, 1, 2) == 'cafe\u0301 au'


def test_windows_take_linear_memory(word_tokenizer):
    """A [windows, tokens] array of 200,000 tokens would have 10^10 entries."""
    windows = question_answering._windows(200_000, 9, 4, 2)
    assert sum(w.is_max_context.sum() for w in windows) == 200_000


def make_article(*paragraphs, title='a'):
    """Return a question about the last word of each paragraph."""
    fields = (
        {'title': title, 'context': p, 'question': 'w1', 'id': f'{i}'} for i, p in enumerate(paragraphs)
    )
    answers = ({'text': [p.split()[-1]], 'answer_start': [p.rindex(' ') + 1]} for p in paragraphs)
    return [Record('', {**f, 'answers': a}) for f, a in zip(fields, answers, strict=True)]


def joined(records, paragraphs):
    data = QuestionConfig('x.json', paragraphs=paragraphs)
    return [record.fields for record in question_answering.join_contexts(records, data)]


def test_answers_are_found_in_joined_contexts():
    # The last word of each paragraph also occurs in the others.
    paragraphs = ['w1 w2 w3', 'w2 w1', 'w3 w1 w2']
    found = joined([*make_article(*paragraphs), *make_article('w9 w1', title='b')], 0)
    assert [f['context'] for f in found] == [*['w1 w2 w3\n\nw2 w1\n\nw3 w1 w2'] * 3, 'w9 w1']
    assert [f['answers'] for f in found] == [
        [{'text': text, 'answer_start': start}]
        for text, start in (('w3', 6), ('w1', 13), ('w2', 23), ('w1', 3))
    ]
    assert all(f['context'][(a := f['answers'][0])['answer_start'] :].startswith(a['text']) for f in found)


def test_joined_contexts_have_at_most_so_many_paragraphs():
    paragraphs = [f'w1 w{i}' for i in range(5)]
    for maximum, sizes in ((0, [5]), (1, [1] * 5), (2, [1, 2, 2]), (3, [2, 3]), (4, [2, 3]), (5, [5])):
        contexts = dict.fromkeys(fields['context'] for fields in joined(make_article(*paragraphs), maximum))
        assert [context.split('\n\n') for context in contexts] == [
            paragraphs[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))
        ]


def test_questions_about_one_paragraph_share_it():
    found = joined([*make_article('w1 w2'), *make_article('w1 w2', 'w3 w4')], 0)
    assert {f['context'] for f in found} == {'w1 w2\n\nw3 w4'}


def test_question_without_answer_stays_one_in_a_joined_context():
    record = make_record('w1 w2')
    assert joined([record._replace(fields={**record.fields, 'title': 'a'})], 0)[0]['answers'] == []


def test_joined_contexts_need_titles():
    with pytest.raises(UserError, match=r"example 0 has no field 'title': .* Set data\.title\."):
        joined([make_record('w1 w2')], 0)


def test_limit_keeps_the_paragraphs_of_other_questions(tmp_path):
    fields = [record.fields for record in make_article('w1 w2', 'w3 w4', 'w5 w6')]
    (tmp_path / 'train.jsonl').write_text('\n'.join(map(json.dumps, fields)))
    data = QuestionConfig(f'{tmp_path}/{{split}}.jsonl', paragraphs=0)
    (record,) = data.read('train', limit=1)
    assert record.fields['context'] == 'w1 w2\n\nw3 w4\n\nw5 w6'


def test_long_row_holds_a_context_in_one_window(word_tokenizer):
    paragraphs = [' '.join(f'w{100 + (i + j) % 97}' for j in range(100)) for i in range(8)]
    data = QuestionConfig('x.json', paragraphs=0)
    records = question_answering.join_contexts(make_article(*paragraphs), data)[3:4]
    windows = {}
    for length in (128, 512, 1024):
        found = dataclasses.replace(data, length=length, stride=60)
        _, (question,) = question_answering.make_rows(records, found, word_tokenizer, True)
        windows[length] = len(question.windows)
    assert windows == {128: 13, 512: 6, 1024: 1}


def test_stride_that_skips_text_raises():
    with pytest.raises(UserError, match=r'data\.stride=128 would skip text'):
        QuestionConfig('x.json', length=128)


@pytest.mark.parametrize(
    'answers',
    [
        None,
        'x',
        3,
        ['w1'],
        [{'text': 'w1'}],
        {'text': ['w1']},
        {'text': 'w1', 'answer_start': [0]},
        {'text': ['w1'], 'answer_start': []},
        {'text': [3], 'answer_start': [0]},
        {'text': ['w1'], 'answer_start': ['0']},
        {'text': ['w1'], 'answer_start': [True]},
    ],
)
def test_malformed_answers_raise(word_tokenizer, answers):
    record = Record('line 2,', {'id': 'a', 'context': 'w1 w2', 'question': 'w3', 'answers': answers})
    with pytest.raises(
        UserError, match=r"line 2, has .* in (the field 'answers'|answers\.(text|answer_start)|answer_start)"
    ):
        make_rows(record, word_tokenizer)


def test_answers_without_positions_say_which_form_is_needed(word_tokenizer):
    record = Record('line 2,', {'context': 'w1 w2', 'question': 'w3', 'answers': 'w2'})
    message = r"line 2, has the text 'w2' in .* data\.answers needs .* positions\. Write \{\"text\": .*, with positions"
    with pytest.raises(UserError, match=message):
        make_rows(record, word_tokenizer)


def test_answers_may_be_a_list_of_objects(word_tokenizer):
    record = make_record('w1 w2 w3')
    record.fields['answers'] = [{'text': 'w2', 'answer_start': 3}, {'text': 'w2 w3', 'answer_start': 3}]
    (row,), question = make_rows(record, word_tokenizer)
    assert question.answers == ['w2', 'w2 w3']
    first = question.windows[0].row_offset + 1
    assert divmod(row.label, SPAN_BASE) == (first, first)


@pytest.mark.parametrize('start', [0, 1, 4, -1])
@pytest.mark.parametrize('text', ['', ' '])
def test_empty_answer_is_no_answer(word_tokenizer, start, text):
    (row,), question = make_rows(make_record('w1 w2 w1', text=text, start=start), word_tokenizer)
    assert row.label == 0
    assert question.answers == ()


@pytest.mark.parametrize(('id_', 'expected'), [(7, '7'), (np.int64(7), '7'), ('a', 'a')])
def test_numbers_are_ids(word_tokenizer, id_, expected):
    record = make_record('w1')
    record.fields['id'] = id_
    assert make_rows(record, word_tokenizer)[1].id == expected


@pytest.mark.parametrize('id_', [None, 1.5, ['a']])
def test_other_types_are_no_ids(word_tokenizer, id_):
    record = make_record('w1')
    record.fields['id'] = id_
    with pytest.raises(UserError, match="in the field 'id', where text belongs"):
        make_rows(record, word_tokenizer)
