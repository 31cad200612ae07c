"""Parquet files as Hugging Face `datasets` writes them, with class names in the metadata of the schema."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import labeled, records, sources
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.tagging import TaggingConfig

CLASS = {'names': ['world', 'sports', 'business'], '_type': 'ClassLabel'}
TAGS = {'names': ['O', 'B-PER', 'I-PER'], '_type': 'ClassLabel'}


def write(path, columns, features=None):
    table = pa.table(columns)
    if features is not None:
        metadata = {'huggingface': json.dumps({'info': {'features': features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=2)


def read(path):
    return [(r.location, r.fields) for r in records.read_file(str(path))]


def test_class_numbers_become_their_names(tmp_path):
    write(tmp_path / 'a.parquet', {'text': ['a', 'b', 'c'], 'label': [1, 0, -1]}, {'label': CLASS})
    assert read(tmp_path / 'a.parquet') == [
        (f'{tmp_path}/a.parquet, row 1,', {'text': 'a', 'label': 'sports'}),
        (f'{tmp_path}/a.parquet, row 2,', {'text': 'b', 'label': 'world'}),
        (f'{tmp_path}/a.parquet, row 3,', {'text': 'c', 'label': None}),  # hidden
    ]


@pytest.mark.parametrize(
    'feature',
    [
        {'feature': TAGS, '_type': 'Sequence'},
        {'feature': TAGS, '_type': 'List'},
        [TAGS],
    ],
)
def test_lists_of_classes(tmp_path, feature):
    write(tmp_path / 'train.parquet', {'tokens': [['Anna', 'ran']], 'tags': [[1, 0]]}, {'tags': feature})
    assert read(tmp_path / 'train.parquet')[0][1] == {'tokens': ['Anna', 'ran'], 'tags': ['B-PER', 'O']}
    data = TaggingConfig(f'{tmp_path}/{{split}}.parquet')
    assert labeled.label_names(data, per_token=True) == ('O', 'B-PER', 'I-PER')


def test_classes_have_the_order_of_the_metadata_and_match_by_name(tmp_path):
    """The two splits number their classes differently."""
    write(tmp_path / 'train.parquet', {'text': ['a'], 'label': [2]}, {'label': CLASS})
    other = {**CLASS, 'names': ['business', 'world', 'sports']}
    write(tmp_path / 'test.parquet', {'text': ['a', 'b'], 'label': [0, 1]}, {'label': other})
    data = LabeledConfig(f'{tmp_path}/{{split}}.parquet')
    names = labeled.label_names(data)
    assert names == ('world', 'sports', 'business')
    assert labeled.class_ids(records.read(data.source, 'train'), data, names) == [2]
    assert labeled.class_ids(records.read(data.source, 'test'), data, names) == [2, 0]


def test_names_that_are_digits_are_names(tmp_path):
    stars = {**CLASS, 'names': ['1', '2']}
    write(tmp_path / 'train.parquet', {'text': ['a', 'b'], 'label': [1, 0]}, {'label': stars})
    data = LabeledConfig(f'{tmp_path}/{{split}}.parquet')
    assert labeled.class_ids(records.read(data.source, 'train'), data, labeled.label_names(data)) == [1, 0]


def test_shards_without_metadata(tmp_path):
    for i, label in enumerate('ba'):
        write(tmp_path / f'train-0000{i}-of-00002.parquet', {'text': [f't{i}'] * 3, 'label': [label] * 3})
    data = LabeledConfig(f'{tmp_path}/{{split}}-*.parquet')
    assert labeled.label_names(data) == ('a', 'b')
    assert [r.text('text') for r in records.read(data.source, 'train')] == ['t0'] * 3 + ['t1'] * 3
    assert [d.paragraphs for d in sources.read_documents(f'{tmp_path}/*.parquet', 'train', 'text')] == [
        ['t0'], ['t0'], ['t0'], ['t1'], ['t1'], ['t1'],
    ]  # fmt: skip


def test_structs_as_in_squad(tmp_path):
    answers = {'text': ['at noon'], 'answer_start': [10]}
    features = {
        'answers': {
            'feature': {
                'text': {'dtype': 'string', '_type': 'Value'},
                'answer_start': {'dtype': 'int32', '_type': 'Value'},
            },
            '_type': 'Sequence',
        }
    }
    write(tmp_path / 'a.parquet', {'id': ['1'], 'answers': [answers]}, features)
    assert read(tmp_path / 'a.parquet')[0][1] == {'id': '1', 'answers': answers}


@pytest.mark.parametrize('name', ['a.parquet', 'a.parquet.gz'])
def test_damaged_or_compressed_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'PAR1 is not all')
    with pytest.raises(UserError, match=rf"{name}' (is damaged or not a Parquet file|cannot be read)"):
        read(tmp_path / name)
