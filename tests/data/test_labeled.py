"""Labelled texts: files and data sets as rows with classes, and what is wrong with them named."""

import csv
import json

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import labeled, records
from bert_jax.data.labeled import LabelledConfig, label_names
from bert_jax.data.rows import unpack

EXAMPLES = [
    {'text': 'w1 w2, "w3"', 'label': 'good'},
    {'text': 'w4', 'label': 'bad'},
    {'text': 'w5\nw6', 'label': 'good'},
]


def write(folder, examples, suffix, split='train', encoding='utf-8'):
    """Writes a split in the format of a suffix; returns the source."""
    path = folder / f'{split}{suffix}'
    with path.open('w', encoding=encoding, newline='') as file:
        if suffix == '.jsonl':
            file.writelines(json.dumps(e) + '\n' for e in examples)
        elif suffix == '.csv':
            writer = csv.DictWriter(file, examples[0].keys())
            writer.writeheader()
            writer.writerows(examples)
        else:
            file.write('\t'.join(examples[0]) + '\n')
            file.writelines('\t'.join(str(v).replace('\n', ' ') for v in e.values()) + '\n' for e in examples)
    return f'{folder}/{{split}}{suffix}'


def config(source, **settings):
    return LabelledConfig(source, **{'length': 16, **settings})


def rows(data, split, labels, tokenizer, limit=0):
    found = records.read(data.source, split, limit)
    return labeled.rows(found, labeled.class_numbers(found, data, labels), data, tokenizer)


def read(data, labels, tokenizer, split='train', limit=0):
    return [unpack(r) for r in rows(data, split, labels, tokenizer, limit)]


def text(row, tokenizer):
    return ' '.join(tokenizer.token(t) for t in row.tokens[1 : row.length - 1])


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv', '.tsv'])
def test_files_become_rows(tmp_path, words, suffix):
    source = write(tmp_path, EXAMPLES, suffix)
    data = config(source)
    labels = label_names(data)
    assert labels == ('bad', 'good')
    found = read(data, labels, words)
    assert [r.label for r in found] == [1, 0, 1]
    assert [text(r, words).replace('[UNK]', '').split() for r in found] == [
        ['w1', 'w2', 'w3'],
        ['w4'],
        ['w5', 'w6'],
    ]
    assert all(
        r.first == r.length and r.tokens[0] == words.cls and r.tokens[r.length - 1] == words.sep
        for r in found
    )
    assert rows(data, 'train', labels, words).shape == (3, 4 + 16)


def test_a_quote_in_tsv_is_only_a_quote(tmp_path, words):
    (tmp_path / 'train.tsv').write_text('text\tlabel\n"w1\t0\nw2" w3\t1\n')
    found = read(config(f'{tmp_path}/{{split}}.tsv'), ('0', '1'), words)
    assert [r.label for r in found] == [0, 1]


def test_other_fields_and_splits(tmp_path, words):
    source = write(tmp_path, [{'body': 'w7', 'kind': 'a', 'text': 'w1'}], '.jsonl', split='dev')
    data = config(source, text='body', label='kind', train_split='dev')
    assert label_names(data) == ('a',)
    (row,) = read(data, ('a', 'b'), words, 'dev')
    assert text(row, words) == 'w7'


def test_a_glob_of_files_is_read_in_order(tmp_path, words):
    for name, word in (('b', 'w2'), ('a', 'w1')):
        write(tmp_path, [{'text': word, 'label': 0}], '.jsonl', split=f'train-{name}')
    found = read(config(f'{tmp_path}/{{split}}-*.jsonl'), ('0', '1'), words)
    assert [text(r, words) for r in found] == ['w1', 'w2']


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_integers_are_classes(tmp_path, words, suffix):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (2, 0, 2, 1)], suffix)
    labels = label_names(config(source))
    assert labels == ('0', '1', '2')
    assert [r.label for r in read(config(source), labels, words)] == [2, 0, 2, 1]


def test_numbers_of_classes_need_not_begin_at_zero(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (12, 1, 3)], '.jsonl')
    assert label_names(config(source)) == ('1', '3', '12')
    assert [r.label for r in read(config(source), ('1', '3', '12'), words)] == [2, 0, 1]


def test_integers_index_given_names(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (1, 0)], '.jsonl')
    assert [r.label for r in read(config(source), ('no', 'yes'), words)] == [1, 0]


def test_names_are_numbered_in_the_order_given(tmp_path, words):
    source = write(tmp_path, EXAMPLES, '.jsonl')
    assert [r.label for r in read(config(source), ('good', 'bad'), words)] == [0, 1, 0]


def test_whole_numbers_with_a_point_are_whole_numbers(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (1.0, 3.0, 1)], '.jsonl')
    labels = label_names(config(source))
    assert labels == ('1', '3')
    assert [r.label for r in read(config(source), labels, words)] == [0, 1, 0]


def test_spaces_around_a_name_are_not_part_of_it(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1', 'label': label} for label in ('no', ' no', 'yes ')], '.jsonl')
    labels = label_names(config(source))
    assert labels == ('no', 'yes')
    assert [r.label for r in read(config(source), labels, words)] == [0, 0, 1]


@pytest.mark.parametrize('label', [0.5, float('nan'), ''])
def test_what_is_no_class_is_an_error(tmp_path, label):
    source = write(tmp_path, [{'text': 'w1', 'label': label}, {'text': 'w1', 'label': 'a'}], '.jsonl')
    with pytest.raises(UserError, match='a label is a whole number or a name'):
        label_names(config(source))


@pytest.mark.parametrize('value', [True, False])
def test_truth_values_are_classes(tmp_path, words, value):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (value, not value)], '.jsonl')
    labels = label_names(config(source))
    assert [r.label for r in read(config(source), labels, words)] == [int(value), int(not value)]


def test_a_label_that_is_a_list_is_an_error(tmp_path):
    source = write(tmp_path, [{'text': 'w1', 'label': ['a', 'b']}], '.jsonl')
    with pytest.raises(UserError, match='label'):
        label_names(config(source))


@pytest.mark.parametrize('label', [2, -1, 17])
def test_a_label_outside_the_classes_names_the_example(tmp_path, words, label):
    source = write(tmp_path, [{'text': 'w1', 'label': 0}, {'text': 'w2', 'label': label}], '.jsonl')
    with pytest.raises(UserError) as error:
        read(config(source), ('0', '1'), words)
    assert str(error.value).startswith(f'{tmp_path}/train.jsonl, line 2, has the label {label}: ')


@pytest.mark.parametrize('label', [0, 2, 4])
def test_a_number_that_is_no_class_is_not_taken_for_the_place_of_one(tmp_path, words, label):
    source = write(tmp_path, [{'text': 'w1', 'label': label}], '.jsonl')
    with pytest.raises(UserError, match=f'has the label {label}: known: 1, 3'):
        read(config(source), ('1', '3'), words)


def test_a_label_that_is_null_is_named(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1', 'label': None}], '.jsonl')
    with pytest.raises(UserError, match='line 1, has no label'):
        read(config(source), ('0', '1'), words)


def test_places_of_names_end_with_the_last(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1', 'label': 2}], '.jsonl')
    with pytest.raises(UserError, match='has the label 2, but there are 2 classes, 0 to 1: mend it'):
        read(config(source), ('no', 'yes'), words)


def test_an_unknown_label_names_the_example_and_the_nearest(tmp_path, words):
    source = write(tmp_path, [*EXAMPLES, {'text': 'w2', 'label': 'goood'}], '.jsonl')
    with pytest.raises(UserError, match=r"line 4, has the label 'goood': did you mean 'good'\?"):
        read(config(source), ('bad', 'good'), words)


def test_a_bad_label_is_named_by_its_place_in_the_data(tmp_path, words):
    examples = [{'text': 'w1', 'label': int(i == 17) * 9} for i in range(30)]
    source = write(tmp_path, examples, '.jsonl')
    with pytest.raises(UserError, match='line 18, has the label 9'):
        read(config(source), ('0', '1'), words, limit=30)


@pytest.mark.parametrize(('fields', 'message'), [
    (dict(text='texts'), r"no field 'texts': did you mean 'text'\?"),
    (dict(second='other'), r"no field 'other': known: label, text"),
    (dict(label='labels'), r"no field 'labels': did you mean 'label'\?"),
])  # fmt: skip
def test_a_missing_field_is_named(tmp_path, words, fields, message):
    data = config(write(tmp_path, EXAMPLES, '.jsonl'), **fields)
    with pytest.raises(UserError, match=message):
        read(data, ('bad', 'good'), words)


def test_a_missing_label_field_is_named_before_there_are_classes(tmp_path):
    data = config(write(tmp_path, EXAMPLES, '.jsonl'), label='labels')
    with pytest.raises(UserError, match=r"no field 'labels'.*label'?"):
        label_names(data)


@pytest.mark.parametrize('late', [{'text': 'w2'}, {'label': 'bad'}])
def test_a_field_that_is_missing_later_names_the_example(tmp_path, words, late):
    source = write(tmp_path, [*EXAMPLES, late], '.jsonl')
    with pytest.raises(UserError, match='line 4,.*(text|label)'):
        read(config(source), ('bad', 'good'), words)


def test_text_that_is_null_is_not_the_word_none(tmp_path, words):
    source = write(tmp_path, [*EXAMPLES, {'text': None, 'label': 'bad'}], '.jsonl')
    with pytest.raises(UserError, match="line 4,.*'text'"):
        read(config(source), ('bad', 'good'), words)


def test_a_short_line_of_a_table_is_an_error(tmp_path, words):
    (tmp_path / 'train.csv').write_text('label,text\ngood,w1\nbad\n')
    with pytest.raises(UserError, match="line 3,.*'text'"):
        read(config(f'{tmp_path}/{{split}}.csv'), ('bad', 'good'), words)


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.jsonl'])
def test_a_byte_order_mark_is_no_part_of_a_field(tmp_path, words, suffix):
    source = write(tmp_path, EXAMPLES, suffix, encoding='utf-8-sig')
    assert [r.label for r in read(config(source), ('bad', 'good'), words)] == [1, 0, 1]


def test_half_a_surrogate_pair_is_read(tmp_path, words):
    (tmp_path / 'train.jsonl').write_text('{"text": "w1 \\ud800 w2", "label": 0}')
    (row,) = read(config(f'{tmp_path}/{{split}}.jsonl'), ('0', '1'), words)
    assert text(row, words).split()[0::2] == ['w1', 'w2']


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.jsonl'])
def test_a_file_that_is_not_utf8_is_named(tmp_path, words, suffix):
    source = write(tmp_path, EXAMPLES, suffix)
    (tmp_path / f'train{suffix}').write_bytes((tmp_path / f'train{suffix}').read_bytes() + b'\xe9')
    with pytest.raises(UserError, match='train'):
        read(config(source), ('bad', 'good'), words)


def test_a_long_field_of_a_table_is_read(tmp_path, words):
    source = write(tmp_path, [{'text': 'w1 ' * 60_000, 'label': 0}], '.csv')
    (row,) = read(config(source), ('0', '1'), words)
    assert row.length == 16


@pytest.mark.parametrize(
    ('line', 'message'), [('{"text"', r'line 2 is not JSON'), ('[1]', r'line 2 is not a JSON object')]
)
def test_a_bad_json_line_is_named(tmp_path, words, line, message):
    (tmp_path / 'train.jsonl').write_text('{"text": "w1", "label": 0}\n' + line + '\n')
    with pytest.raises(UserError, match=r'train\.jsonl, ' + message):
        read(config(f'{tmp_path}/{{split}}.jsonl'), ('0', '1'), words)


def test_no_file_no_source_and_no_examples(tmp_path, words):
    source = f'{tmp_path}/{{split}}.jsonl'
    with pytest.raises(UserError, match=r'No file matches .*train\.jsonl.*set data\.source'):
        read(config(source), ('0', '1'), words)
    with pytest.raises(UserError, match=r'data\.source is empty: name a TFDS data set, or files'):
        read(config(''), ('0', '1'), words)
    (tmp_path / 'train.jsonl').write_text('\n')
    with pytest.raises(UserError, match=r"split 'train', has no examples: check data\.source"):
        read(config(source), ('0', '1'), words)


def test_no_classes_can_be_found_in_no_examples(tmp_path):
    (tmp_path / 'train.jsonl').write_text('\n')
    with pytest.raises(UserError, match='has no examples'):
        label_names(config(f'{tmp_path}/{{split}}.jsonl'))


def numbered(start, n):
    return ' '.join(f'w{start + i}' for i in range(n))


@pytest.mark.parametrize(
    ('a', 'b', 'kept'), [(3, 4, (3, 4)), (20, 3, (10, 3)), (3, 20, (3, 10)), (20, 20, (7, 6))]
)
def test_pairs_are_cut_at_their_ends_the_longer_first(tmp_path, words, a, b, kept):
    source = write(tmp_path, [{'one': numbered(0, a), 'two': numbered(100, b), 'label': 0}], '.jsonl')
    (row,) = read(config(source, text='one', second='two'), ('0', '1'), words)
    first, second = words.encode([numbered(0, kept[0]), numbered(100, kept[1])])
    assert row.tokens[: row.length].tolist() == [words.cls, *first, words.sep, *second, words.sep]
    assert row.first == kept[0] + 2
    assert len(row.tokens) == 16


@pytest.mark.parametrize(('n', 'kept'), [(14, 14), (15, 14), (40, 14), (0, 0)])
def test_one_text_is_cut_at_its_end(tmp_path, words, n, kept):
    source = write(tmp_path, [{'text': numbered(0, n), 'label': 0}], '.jsonl')
    (row,) = read(config(source), ('0', '1'), words)
    assert text(row, words) == numbered(0, kept)
    assert row.length == kept + 2


def test_a_limit_is_a_fixed_random_subset(tmp_path, words):
    source = write(tmp_path, [{'text': f'w{i}', 'label': i % 2} for i in range(100)], '.jsonl')

    def numbers(limit):
        return [int(text(r, words)[1:]) for r in read(config(source), ('0', '1'), words, limit=limit)]

    assert numbers(0) == list(range(100))
    ten, twenty = numbers(10), numbers(20)
    assert ten == numbers(10)
    assert len(set(twenty)) == 20
    assert twenty[:10] == ten, 'a larger part holds the smaller one'
    assert ten != sorted(ten)
    assert sorted(numbers(1000)) == list(range(100))


def test_a_label_goes_with_its_text_in_a_subset(tmp_path, words):
    source = write(tmp_path, [{'text': f'w{i}', 'label': i % 3} for i in range(50)], '.jsonl')
    for row in read(config(source), ('0', '1', '2'), words, limit=20):
        assert row.label == int(text(row, words)[1:]) % 3


class Coded:
    """A data set whose classes have digits for names, as the stars of reviews have."""

    names = ['1', '2']
    num_classes = 2


def test_numbers_of_a_data_set_are_classes_even_if_names_are_digits(monkeypatch, words):
    examples = [{'text': 'w1', 'label': i} for i in (0, 1, 1, 0)]
    monkeypatch.setattr(labeled.sources, 'features', lambda _: {'text': None, 'label': Coded()})
    monkeypatch.setattr(records.sources, 'examples', lambda *_: examples)
    data = config('stars')
    labels = label_names(data)
    assert labels == ('1', '2')
    assert [r.label for r in read(data, labels, words)] == [0, 1, 1, 0]


def test_a_real_data_set(sst2, words):
    data = config(sst2, text='sentence', length=32)
    labels = label_names(data)
    assert labels == ('negative', 'positive')
    found = rows(data, 'validation', labels, words)
    assert found.shape == (872, 4 + 32)
    assert np.bincount(found[:, 2]).tolist() == [428, 444]


def test_labels_that_are_withheld_are_an_error(sst2, words):
    with pytest.raises(
        UserError, match=r'example 0 of glue/sst2.* has the label -1, but there are 2 classes'
    ):
        rows(config(sst2, text='sentence'), 'test[:20]', ('negative', 'positive'), words)


@pytest.mark.parametrize(
    ('own', 'labels', 'expected'),
    [
        (('no', 'yes'), ('no', 'yes'), [0, 1]),
        (('no', 'yes'), ('yes', 'no'), [1, 0]),
        (('no', 'yes'), ('YES', 'MAYBE', 'NO'), [2, 0]),
        (('a', 'A'), ('A', 'a'), [1, 0]),
        (('no', 'yes'), ('LABEL_0', 'LABEL_1'), [0, 1]),
        ((), ('no', 'yes'), [0, 1]),
    ],
)
def test_classes_of_a_model_and_of_data_meet_by_name_else_by_number(monkeypatch, own, labels, expected):
    monkeypatch.setattr(labeled, '_own_names', lambda data: own)
    classes = labeled.Classes(LabelledConfig('glue/rte'), labels)
    assert [classes.number(i, 'a') for i in range(2)] == expected


def test_a_model_of_other_classes_is_refused(monkeypatch):
    monkeypatch.setattr(labeled, '_own_names', lambda data: ('no', 'yes'))
    with pytest.raises(UserError, match='has the classes no, yes, but the model has a, b, c'):
        labeled.Classes(LabelledConfig('glue/rte'), ('a', 'b', 'c'))
