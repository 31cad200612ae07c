"""Predictions in every file format."""

import datetime
import json
import types

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import records as records_lib
from bert_jax.data.formats import Invalid
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.question_answering import QuestionConfig
from bert_jax.data.records import Record
from bert_jax.data.tagging import TaggingConfig
from bert_jax.evals import prediction_files

CLASSIFIER = types.SimpleNamespace(
    data=LabeledConfig(), config=types.SimpleNamespace(name='classify', labels=('no', 'yes'))
)
READER = types.SimpleNamespace(data=QuestionConfig(), config=types.SimpleNamespace(name='qa'))
TAGGER = types.SimpleNamespace(data=TaggingConfig(), config=types.SimpleNamespace(name='tag'))

PREDICTION = {'prediction': 'yes', 'probability': 0.75, 'probabilities': {'no': 0.25, 'yes': 0.75}}
ROWS = [
    (Invalid('line 1 is not JSON.'), Invalid('line 1 is not JSON.')),
    (Record('line 2,', {'id': 7, 'text': 'a, "b"\rc\t \n'}), PREDICTION),
    (Record('line 3,', {'text': ' d', 'tags': ['x', 'y']}), PREDICTION),
]


def write(path, rows, task=CLASSIFIER, name=None, **options):
    name = prediction_files.find_format(path, name, 'in.jsonl')
    prediction_files.write(path, name, *zip(*rows, strict=True), task, **options)
    return path.read_bytes().decode()


def read(path):
    return [{k: v for k, v in r.fields.items() if v != ''} for r in records_lib.read_file(str(path))]


def test_json_lines(tmp_path):
    found = [json.loads(line) for line in write(tmp_path / 'a.jsonl', ROWS).splitlines()]
    assert found[0] == {'error': 'line 1 is not JSON.'}
    assert found[1] == {'id': 7, 'text': 'a, "b"\rc\t \n', **PREDICTION}


@pytest.mark.parametrize(('suffix', 'text'), [('csv', 'a, "b"\rc\t \n'), ('tsv', 'a, "b" c   ')])
def test_tables_have_a_column_for_each_class(tmp_path, suffix, text):
    out = write(tmp_path / f'a.{suffix}', ROWS)
    delimiter = {'csv': ',', 'tsv': '\t'}[suffix]
    names = ['id', 'text', 'tags', 'prediction', 'probability', 'probability_no', 'probability_yes', 'error']
    assert out.splitlines()[0].split(delimiter) == names
    first, second, third = read(tmp_path / f'a.{suffix}')
    added = {'prediction': 'yes', 'probability': '0.75', 'probability_no': '0.25', 'probability_yes': '0.75'}
    assert first == {'error': 'line 1 is not JSON.'}
    assert second == {'id': '7', 'text': text, **added}
    assert third == {'text': ' d', 'tags': '["x", "y"]', **added}


def test_fields_of_the_input_are_never_overwritten(tmp_path, caplog):
    """The output of one model can be the input of another."""
    write(tmp_path / 'a.csv', ROWS[1:])
    again = [(record, PREDICTION) for record in records_lib.read_file(str(tmp_path / 'a.csv'))]
    write(tmp_path / 'b.csv', again)
    assert 'the new columns end in _2' in caplog.text
    row = read(tmp_path / 'b.csv')[0]
    assert row['prediction'] == row['prediction_2'] == 'yes'
    assert row['probability_yes_2'] == '0.75'


def test_values_of_tfds_and_parquet(tmp_path):
    fields = {
        'score': np.float32(3.8),
        'ids': np.array([1, 2]),
        'day': datetime.date(2020, 1, 2),
        'half': '\ud800',
        'none': None,
    }
    rows = [(Record('a', fields), {'prediction': 0.5})]
    expected = {
        'score': 3.8,
        'ids': [1, 2],
        'day': '2020-01-02',
        'half': '?',
        'none': None,
        'prediction': 0.5,
    }
    assert json.loads(write(tmp_path / 'a.jsonl', rows)) == expected
    assert write(tmp_path / 'a.csv', rows).splitlines()[1] == '3.8,"[1, 2]",2020-01-02,?,,0.5'


def test_squad_format(tmp_path, caplog):
    rows = [
        (Record('a', {'id': 'a'}), {'prediction': 'x'}),
        (Record('b', {}), Invalid('b has no field')),
        (Record('c', {}), {'prediction': ''}),
        (Record('d', {'id': 'a'}), {'prediction': 'y'}),
    ]
    assert json.loads(write(tmp_path / 'a.json', rows, READER, 'squad')) == {'a': 'y', '2': ''}
    assert '1 questions repeat the id' in caplog.text


def test_glue_format_is_sorted_by_the_idx_field(tmp_path):
    """TFDS shuffles the examples; their field idx is the line in the original file."""
    rows = [(Record('a', {'idx': i}), {'prediction': name}) for i, name in ((2, 'yes'), (0, 'no'))]
    assert write(tmp_path / 'a.tsv', rows, name='glue') == 'index\tprediction\n0\tno\n2\tyes\n'
    out = write(tmp_path / 'a.tsv', rows, name='glue', use_class_ids=True)
    assert out == 'index\tprediction\n0\t0\n2\t1\n'
    out = write(tmp_path / 'a.tsv', [(Record('a', {}), {'prediction': 2.0 / 3})], name='glue')
    assert out == 'index\tprediction\n0\t0.667\n'


def test_invalid_idx_raises(tmp_path):
    rows = [(Record('line 1,', {'idx': 'x'}), {'prediction': 'yes'})]
    with pytest.raises(UserError, match="line 1, has 'x' in the field idx, which is not a whole number"):
        write(tmp_path / 'o.tsv', rows, name='glue')
    assert not (tmp_path / 'o.tsv').exists()


@pytest.mark.parametrize(
    ('name', 'task', 'message'),
    [
        ('glue', TAGGER, "one label or value per text, not predictions of the task 'tag'"),
        ('glue', READER, "one label or value per text, not predictions of the task 'qa'"),
        ('squad', CLASSIFIER, "answers to questions, not predictions of the task 'classify'"),
    ],
)
def test_format_that_cannot_hold_the_predictions_raises(name, task, message):
    with pytest.raises(UserError, match=message):
        prediction_files.check_task(name, task)
    for fitting, other in (('glue', CLASSIFIER), ('squad', READER), ('csv', task)):
        prediction_files.check_task(fitting, other)
