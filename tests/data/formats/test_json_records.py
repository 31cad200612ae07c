"""JSON files hold one object per line, a list of objects, or SQuAD."""

import io
import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.formats import json_records

RECORDS = [{'text': 'good', 'label': 1}, {'text': 'bad', 'label': 0}]
SQUAD = {
    'version': '1.1',
    'data': [
        {
            'title': 'x',
            'paragraphs': [
                {
                    'context': '台北在台灣。',
                    'qas': [
                        {'id': '1', 'question': '在哪?', 'answers': [{'text': '台灣', 'answer_start': 3}]},
                        {'id': 2, 'question': '?', 'is_impossible': True, 'answers': []},
                        {'id': '3', 'question': 'why?'},
                    ],
                }
            ],
        }
    ],
}


def read(text):
    return list(json_records.read_document(io.StringIO(text), 'a.json'))


@pytest.mark.parametrize(
    ('text', 'place'),
    [
        ('\n'.join(map(json.dumps, RECORDS)), 'line'),
        (json.dumps(RECORDS, indent=1), 'record'),
        (json.dumps({'version': 2, 'data': RECORDS}), 'record'),
    ],
)
def test_layouts_of_records(text, place):
    assert read(text) == [(f'{place} 1', RECORDS[0]), (f'{place} 2', RECORDS[1])]


def test_single_object_is_a_record():
    assert read('{"text": "good"}\n') == [('record 1', {'text': 'good'})]


@pytest.mark.parametrize('value', [SQUAD, SQUAD['data']])
def test_squad(value):
    context = SQUAD['data'][0]['paragraphs'][0]['context']
    assert read(json.dumps(value)) == [
        (
            'question 1',
            {
                'id': '1',
                'context': context,
                'question': '在哪?',
                'answers': {'text': ['台灣'], 'answer_start': [3]},
                'title': 'x',
            },
        ),
        (
            'question 2',
            {
                'id': 2,
                'context': context,
                'question': '?',
                'answers': {'text': [], 'answer_start': []},
                'title': 'x',
            },
        ),
        ('question 3', {'id': '3', 'context': context, 'question': 'why?', 'title': 'x'}),
    ]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[', r"'a\.json' is not JSON \(Expecting value: line 1 column 2"),
        ('[' * 100_000, r"'a\.json' is not JSON \(.*recursion"),
        ('{"data": [{"paragraphs": [{}]}]}', r"not in the SQuAD format \(KeyError: 'qas'\)"),
        ('{"data": [{"paragraphs": [{"qas": ""}]}]}', r'TypeError: qas is a value of type str, not a list'),
        ('3', 'holds no list of records'),
        ('{"data": {"text": ["a"]}}', 'holds no list of records'),
        ('{"text": "\udce9"}', 'is not UTF-8'),
        ('{"label": 0, "label": 1}', "has the field 'label' twice"),
    ],
)
def test_invalid_documents_are_named(text, message):
    with pytest.raises(UserError, match=message):
        read(text)


def test_invalid_records_are_marked():
    (_, valid), (place, invalid) = read('[{"a": 1}, [2]]')
    assert valid == {'a': 1}
    assert (place, 'is not a JSON object' in invalid.problem) == ('record 2', True)
    found = read('{"a": 1}\n{"a": 1, "a": 2}\n{\n{"a": 3}\n')
    assert [place for place, _ in found] == ['line 1', 'line 2', 'line 3', 'line 4']
    assert "the field 'a' twice" in found[1][1].problem
    assert 'is not JSON' in found[2][1].problem


@pytest.mark.parametrize(
    'question',
    [
        {'id': 'b'},
        {'id': 'b', 'question': 'q', 'answers': [{'text': 't'}]},
        {'id': 'b', 'question': 'q', 'is_impossible': 'false', 'answers': []},
        'what?',
    ],
)
def test_invalid_questions_are_marked(question):
    squad = {'data': [{'paragraphs': [{'context': 'c', 'qas': [{'id': 'a', 'question': 'q'}, question]}]}]}
    (_, valid), (place, invalid) = read(json.dumps(squad))
    assert valid['id'] == 'a'
    assert place == 'question 2'
    assert 'is not in the SQuAD format' in invalid.problem
