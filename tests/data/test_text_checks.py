"""Checks of labeled texts: empty texts and texts that the vocabulary does not cover."""

import logging

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import multiple_choice, question_answering, seq2seq, tagging
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.records import Record
from bert_jax.tasks import classify

CHINESE, KNOWN = '大学', 'w1 w2'


def make_task(tokenizer):
    return classify.Task(classify.Config(labels=('0', '1')), LabeledConfig(length=16), tokenizer)


def make_records(texts, **fields):
    return [Record(f'a.csv, line {i},', {'text': text, 'label': 0} | fields) for i, text in enumerate(texts)]


@pytest.mark.parametrize('texts', [['', KNOWN, ' \n'], [KNOWN, '', KNOWN]])
def test_empty_texts_are_counted_and_the_first_is_named(word_tokenizer, caplog, texts):
    make_task(word_tokenizer).make_labeled_examples(make_records(texts))
    n = sum(not text.strip() for text in texts)
    expected = f'{n} of 3 examples have an empty text; the first is a.csv, line {0 if n == 2 else 1}'
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [expected]


def test_only_empty_texts_are_an_error(word_tokenizer):
    with pytest.raises(UserError, match=r'All 2 examples have an empty text, from a\.csv, line 0 on\.'):
        make_task(word_tokenizer).make_labeled_examples(make_records(['', ' ']))


def warnings_of_unknown(caplog):
    return [r.getMessage() for r in caplog.records if 'are [UNK]' in r.getMessage()]


@pytest.mark.parametrize(('unknown', 'expected'), [(0, None), (1, None), (2, '11 %'), (10, '38 %')])
def test_many_unknown_tokens_are_reported_once(word_tokenizer, caplog, unknown, expected):
    make_task(word_tokenizer).make_examples(make_records([KNOWN] * 8 + ['大'] * unknown))
    found = warnings_of_unknown(caplog)
    assert len(found) == bool(expected)
    if expected:
        assert found[0].startswith(f'{expected} of the tokens of {8 + unknown} examples are [UNK]')


@pytest.mark.parametrize(
    ('module', 'config', 'fields'),
    [
        (multiple_choice, multiple_choice.ChoiceConfig('x.jsonl'), {'endings': [CHINESE, 'w1']}),
        (
            question_answering,
            question_answering.QuestionConfig('x.jsonl'),
            {'question': 'w1', 'context': CHINESE, 'answers': []},
        ),
        (seq2seq, seq2seq.Seq2SeqConfig('x.jsonl'), {'target': CHINESE}),
    ],
)
def test_all_texts_of_a_record_are_searched_for_unknown_tokens(
    word_tokenizer, caplog, module, config, fields
):
    module.make_rows(make_records([KNOWN] * 3, **fields), config, word_tokenizer, True)
    assert len(warnings_of_unknown(caplog)) == 1


def test_words_are_searched_for_unknown_tokens(word_tokenizer, caplog):
    records = make_records([KNOWN] * 3, tokens=['w1', CHINESE], tags=['0', '1'])
    tagging.make_rows(records, tagging.TaggingConfig('x.jsonl'), ('0', '1'), word_tokenizer, True)
    assert len(warnings_of_unknown(caplog)) == 1
