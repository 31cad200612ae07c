"""Records of files and data sets; errors name the file and line."""

import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import records
from bert_jax.data.records import Record

CONLL = '-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP B-PER\n'
CONLLU = (
    '# text = vámonos al\n'
    '1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_\n'
    '1\tvamos\tir\tVERB\tVB\t_\t_\t_\t_\t_\n'
    '2\tnos\tnosotros\tPRON\tPR\t_\t_\t_\t_\t_\n'
    '2.1\tgone\t_\tVERB\t_\t_\t_\t_\t_\t_\n'
    '\n'
)
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
                        {
                            'id': 2,
                            'question': '?',
                            'is_impossible': True,
                            'plausible_answers': [],
                            'answers': [],
                        },
                    ],
                }
            ],
        }
    ],
}


def read_fields(path, text):
    path.write_text(text, encoding='utf-8')
    return [r.fields for r in records.read(str(path).replace('train', '{split}'), 'train')]


@pytest.mark.parametrize('ending', ['\n', '\r\n'])
def test_conll_tags_are_in_the_last_column(tmp_path, ending):
    assert read_fields(tmp_path / 'train.conll', CONLL.replace('\n', ending)) == [
        {'tokens': ['EU', 'rejects'], 'tags': ['B-ORG', 'O']},
        {'tokens': ['Peter'], 'tags': ['B-PER']},
    ]


@pytest.mark.parametrize(
    ('text', 'tokens', 'tags'),
    [
        ('New York\tB-LOC\n', ['New York'], ['B-LOC']),
        ('a\u00a0b O\nc\u3000d  O\n', ['a\u00a0b', 'c\u3000d'], ['O', 'O']),
        ('# id 1\tdomain=en\nx _ _ O\n# O\n', ['x', '#'], ['O', 'O']),
        ('a I-X\nb I-X\nc B-X\nd I-Y\ne O\nf I-Y\n', [*'abcdef'], ['B-X', 'I-X', 'B-X', 'B-Y', 'O', 'B-Y']),
        ('a I-X\nb NN\n', ['a', 'b'], ['I-X', 'NN']),
    ],
)
def test_conll_columns_and_schemes(tmp_path, text, tokens, tags):
    assert read_fields(tmp_path / 'train.conll', text) == [{'tokens': tokens, 'tags': tags}]


def test_conll_sentences_without_tags(tmp_path):
    assert read_fields(tmp_path / 'train.conll', 'New\nYork\n\na O\n') == [
        {'tokens': ['New', 'York']},
        {'tokens': ['a'], 'tags': ['O']},
    ]


def test_conllu_skips_contractions_and_empty_nodes(tmp_path):
    assert read_fields(tmp_path / 'train.conllu', CONLLU) == [
        {'tokens': ['vamos', 'nos'], 'upos': ['VERB', 'PRON'], 'xpos': ['VB', 'PR']}
    ]


def test_squad(tmp_path):
    assert read_fields(tmp_path / 'train.json', json.dumps(SQUAD)) == [
        {
            'id': '1',
            'context': '台北在台灣。',
            'question': '在哪?',
            'answers': {'text': ['台灣'], 'answer_start': [3]},
        },
        {'id': '2', 'context': '台北在台灣。', 'question': '?', 'answers': {'text': [], 'answer_start': []}},
    ]


def test_squad_questions_without_answers_have_no_answers_field(tmp_path):
    data = {'data': [{'paragraphs': [{'context': 'c', 'qas': [{'id': '1', 'question': 'q'}]}]}]}
    assert read_fields(tmp_path / 'test.train.json', json.dumps(data)) == [
        {'id': '1', 'context': 'c', 'question': 'q'}
    ]


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('train.conll', 'a O\nb\n', r'train\.conll, line 2 has one column'),
        ('train.conllu', '1\ta\n', r'train\.conllu, line 1 has 2 columns'),
        (
            'train.json',
            '{"data": [{}]}',
            r"train\.json' is not in the SQuAD format \(KeyError: 'paragraphs'\)",
        ),
        ('train.json', '[', r"train\.json' is not in the SQuAD format"),
        ('train.json', '[' * 100_000, r"train\.json' is not in the SQuAD format \(RecursionError"),
        ('train.jsonl', '[' * 100_000, r'train\.jsonl, line 1 is not JSON'),
        ('train.jsonl', '{"label": ' + '9' * 5000 + '}', r'train\.jsonl, line 1 is not JSON \(Exceeds'),
    ],
)
def test_invalid_file_is_named(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read_fields(tmp_path / name, text)


@pytest.mark.parametrize(
    ('name', 'data', 'valid_lines', 'problems'),
    [
        (
            'a.jsonl',
            b'{"a": 1}\n\n{\n{"a": "\xe9"}\n{"a": 2}\n',
            [1, 5],
            ['line 3 is not', 'line 4 is not UTF-8'],
        ),
        ('a.csv', b'a,b\nx,1\n\xe9,2\n"y\ny",3\n', [2, 5], ['line 3 is not UTF-8']),
        ('a.conll', b'a O\n\nb O\nc\n\nd O\n', [1, 6], ['line 4 has one column']),
        ('a.conll', b'a O\n\nb \xe9\n', [1], ['line 3 is not UTF-8']),
        ('a.conllu', b'# x\n1\ta' + b'\t_' * 8 + b'\n\n1\ta\n', [2], ['line 4 has 2 columns']),
    ],
)
def test_invalid_record_is_reported_and_skipped(tmp_path, name, data, valid_lines, problems):
    (tmp_path / name).write_bytes(data)
    reported = []
    found = list(records.read_file(str(tmp_path / name), reported.append))
    assert [r.location for r in found] == [f'{tmp_path / name}, line {n},' for n in valid_lines]
    assert len(reported) == len(problems)
    assert all(p in r for p, r in zip(problems, reported, strict=True))


def test_invalid_squad_question_is_reported_and_skipped(tmp_path):
    valid = {'id': 'a', 'question': 'q'}
    invalid = [{'id': 'b'}, {**valid, 'answers': [{'text': 't'}]}, 'what?']
    squad = {'data': [{'paragraphs': [{'context': 'c', 'qas': [valid, *invalid]}]}]}
    (tmp_path / 'a.json').write_text(json.dumps(squad))
    reported = []
    (record,) = records.read_file(str(tmp_path / 'a.json'), reported.append)
    assert record.fields['id'] == 'a'
    assert ['question 2' in reported[0], 'question 3' in reported[1], 'question 4' in reported[2]] == [
        True
    ] * 3


def test_nested_fields_and_translation_languages():
    record = Record(
        'example 0',
        {
            'premise': {'en': 'a', 'de': 'b'},
            'hypothesis': {'language': ['de', 'en'], 'translation': ['c', 'd']},
        },
    )
    assert (record.text('premise.de'), record.text('hypothesis.en')) == ('b', 'd')
    with pytest.raises(UserError, match=r"example 0 has no field 'premise\.es': known: de, en|did you mean"):
        record.get('premise.es')
    with pytest.raises(UserError, match=r"no field 'hypothesis\.xx'"):
        record.get('hypothesis.xx')
