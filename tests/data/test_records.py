"""Records of files and data sets; errors name the file and line."""

import os
import pathlib
import re

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import files, records
from bert_jax.data.records import Record
from tests.data.test_files import COMPRESS


def read_fields(path, text):
    path.write_text(text, encoding='utf-8')
    return [r.fields for r in records.read(str(path).replace('train', '{split}'), 'train')]


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('train.conll', 'a O\nb\n', r'train\.conll, line 2 has one column'),
        ('train.conllu', '1\ta\n', r'train\.conllu, line 1 has 2 columns'),
        (
            'train.json',
            '{"data": [{"paragraphs": [{}]}]}',
            r"train\.json' is not in the SQuAD format \(KeyError: 'qas'\)",
        ),
        ('train.json', '[', r"train\.json' is not JSON"),
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
        ('a.csv', b'a,b\nx,1\n\xe9,2\n"y\ny",3\n', [2, 4], ['line 3 is not UTF-8']),
        (
            'a.txt',
            b'\xef\xbb\xbfa bird\r\n\n \nno\xe9l\nb\0d\nend',
            [1, 6],
            ['line 4 is not UTF-8', 'line 5 is not UTF-8'],
        ),
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


def test_nested_fields_and_translation_languages():
    record = Record(
        'example 0',
        {
            'premise': {'en': 'a', 'de': 'b'},
            'hypothesis': {'language': ['de', 'en'], 'translation': ['c', 'd']},
        },
    )
    assert (record.text('premise.de'), record.text('hypothesis.en')) == ('b', 'd')
    with pytest.raises(
        UserError, match=r"example 0 has no field 'premise\.es': did you mean 'en'\? Others: de"
    ):
        record.get('premise.es')
    with pytest.raises(UserError, match=r"no field 'hypothesis\.xx': known: de, en"):
        record.get('hypothesis.xx')
    assert Record('a', {'premise.en': 'c', 'premise': {'en': 'd'}}).text('premise.en') == 'c'


@pytest.mark.parametrize(
    'suffix', ['.JSONL', '.jsonl.gz', '.CSV', '.csv.gz', '.csv.xz', '.tsv.zst', '.json.bz2']
)
def test_suffixes_in_any_case_and_compressed(tmp_path, suffix):
    plain, packing = files.split_suffix(f'train{suffix}')
    text = {'.csv': 'text,label\na,b\n', '.tsv': 'text\tlabel\na\tb\n'}.get(
        plain, '{"text": "a", "label": "b"}\n'
    )
    data = COMPRESS[packing](text.encode()) if packing else text.encode()
    (tmp_path / f'train{suffix}').write_bytes(data)
    (record,) = records.read(f'{tmp_path}/{{split}}{suffix}', 'train')
    assert record.fields == {'text': 'a', 'label': 'b'}
    assert record.location.startswith(f'{tmp_path}/train{suffix}, ')


@pytest.mark.parametrize(
    ('value', 'description'),
    [
        (None, 'null'),
        (True, 'true'),
        (3, 'the number 3'),
        (float('nan'), 'the number nan'),
        (np.int64(3), 'the number 3'),
        (['a', 'good', 'day'], "the list ['a', 'good', 'day']"),
        ({'n': 3}, "the object {'n': 3}"),
        (b'a', "the list b'a'"),
    ],
)
def test_only_text_is_text(value, description):
    message = f"a.jsonl, line 1, has {description} in the field 'text', where text belongs. "
    with pytest.raises(UserError, match=re.escape(message)):
        Record('a.jsonl, line 1,', {'text': value}).text('text')
    with pytest.raises(UserError, match=re.escape("in the list 'text', where text belongs")):
        Record('a.jsonl, line 1,', {'text': ['a', value]}).texts('text')


def test_part_of_an_object_is_suggested():
    with pytest.raises(UserError, match=r"Name a part of it in the config, such as 'review\.en'"):
        Record('a', {'review': {'en': 'a', 'de': 'b'}}).text('review')


def test_missing_field_lists_all_fields_with_their_types():
    fields = {'idx': 3, 'body': 'a', 'tags': ['x'], 'gold': True, 'parts': {'en': 'a'}}
    kinds = 'gold (true or false), idx (number), parts (object), tags (list)'
    message = f"a has no field 'boddy': did you mean 'body' (text)? Others: {kinds}. Set data.text."
    with pytest.raises(UserError, match=re.escape(message)):
        Record('a', fields).text('boddy', 'data.text')
    with pytest.raises(UserError, match='known: language, translation'):  # not a translation of TFDS
        Record('a', {'language': 'en', 'translation': 'a'}).text('q')


@pytest.mark.parametrize('value', ['a b', "['a', 'b']", None, 3, {'a': 'b'}, b'a'])
def test_only_lists_are_lists(value):
    with pytest.raises(UserError, match="in the field 'tokens', where a list of words belongs"):
        Record('a', {'tokens': value}).texts('tokens', 'words')


def test_text_has_a_record_per_line_and_yields_to_labeled_files(tmp_path):
    (tmp_path / 'train.txt').write_text(' a bird \n\nan owl\u2028 flies\n')
    found = records.read(f'{tmp_path}/{{split}}.*', 'train')
    assert [r.fields for r in found] == [{'text': 'a bird'}, {'text': 'an owl\u2028 flies'}]
    (tmp_path / 'train.jsonl').write_text('{"text": "x"}')
    assert [r.fields for r in records.read(f'{tmp_path}/{{split}}.*', 'train')] == [{'text': 'x'}]


def test_tables_say_where_their_fields_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r'known: 1, a good day\. The first line of a \.tsv file names its fields'
    ):
        (tmp_path / 'a.tsv').write_text('a good day\t1\na bad day\t0\n')
        next(records.read_file(str(tmp_path / 'a.tsv'))).text('text')


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('/nowhere/x', "No file matches '/nowhere/x'. Set data.source to"),
        ('./nowhere', "No file matches './nowhere'"),
        ('mine/{split}.CSV', "No file matches 'mine/train.CSV'"),
        ('/nowhere/{split}.parquet', "No file matches '/nowhere/train.parquet'"),
        ('/no where, x/{split}.jsonl', "No file matches '/no where, x/train.jsonl'"),
        ('README.md', "'README.md' has an unknown format. Use a file with one of the suffixes .jsonl, "),
        ('tests', "'tests' is a folder. Set data.source to the files in it, such as 'tests/{split}.jsonl'"),
        ('tests/', "such as 'tests/{split}.jsonl'"),
    ],
)
def test_paths_without_readable_files_are_named(monkeypatch, source, message):
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])
    with pytest.raises(UserError, match=re.escape(message)):
        records.read(source, 'train')


@pytest.mark.parametrize('pattern', ['{split}.jsonl', 'x[1]/{split}-*.jsonl'])
def test_missing_split_names_those_that_there_are(tmp_path, pattern):
    (tmp_path / 'x[1]').mkdir()
    for name in ('train', 'dev'):
        path = tmp_path / pattern.format(split=name).replace('*', '00-of-01')
        path.write_text('{"text": "a"}')
    message = 'but there are files of the splits dev, train. Set data.train_split or data.eval_split'
    with pytest.raises(UserError, match=message):
        records.read(f'{tmp_path}/{pattern}', 'validation')


def test_missing_file_lists_those_in_its_folder(tmp_path):
    for name in ('test.csv', 'moods.csv.gz', 'notes.md'):
        (tmp_path / name).write_text('')
    with pytest.raises(
        UserError, match=r"mood\.csv': did you mean 'moods\.csv\.gz'\? Others: test\.csv\. Set"
    ):
        records.read(f'{tmp_path}/mood.csv', 'train')


def test_copy_of_a_file_is_found(tmp_path):
    for name, text in {'train': 'a', 'dev': 'b', 'test': 'a', 'empty1': '', 'empty2': ''}.items():
        (tmp_path / f'{name}.csv').write_text(text)
    source = f'{tmp_path}/{{split}}.csv'
    assert records.find_copy(source, 'train', 'test') == (f'{tmp_path}/train.csv', f'{tmp_path}/test.csv')
    for pair in (('train', 'dev'), ('empty1', 'empty2'), ('train', 'nothing')):
        assert records.find_copy(source, *pair) is None


def test_splits_of_files_overlap_if_they_share_a_file(tmp_path):
    for name in ('train', 'train2', 'test', 'all'):
        (tmp_path / f'{name}.jsonl').write_text('')
    assert records.splits_overlap(f'{tmp_path}/{{split}}*.jsonl', 'train', 'train2')
    assert not records.splits_overlap(f'{tmp_path}/{{split}}.jsonl', 'train', 'train2')
    assert records.splits_overlap(f'{tmp_path}/all.jsonl', 'train', 'test')
    assert not records.splits_overlap(f'{tmp_path}/none.jsonl', 'train', 'test'), (
        'reading it says that it is missing'
    )


def test_pipe_of_unknown_format_is_named(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(UserError, match="pipe' has an unknown format"):
        list(records.read_file(str(tmp_path / 'pipe')))
