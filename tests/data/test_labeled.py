"""Labeled texts: files and data sets become rows with classes; errors name the record."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import labeled, records
from bert_jax.data.labeled import LabeledConfig, label_names
from bert_jax.data.rows import unpack

EXAMPLES = [
    {'text': 'w1 w2, "w3"', 'label': 'good'},
    {'text': 'w4', 'label': 'bad'},
    {'text': 'w5\nw6', 'label': 'good'},
]


def write(folder, examples, suffix, split='train', encoding='utf-8'):
    """Write a split in the format of the suffix; return the value of `data.source`."""
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
    return LabeledConfig(source, **{'length': 16, **settings})


def make_rows(data, split, labels, tokenizer, limit=0):
    found = records.read(data.source, split, limit)
    return labeled.make_rows(found, labeled.class_ids(found, data, labels), data, tokenizer)


def read_rows(data, labels, tokenizer, split='train', limit=0):
    return [unpack(r) for r in make_rows(data, split, labels, tokenizer, limit)]


def text(row, tokenizer):
    return ' '.join(tokenizer.token(t) for t in row.tokens[1 : row.length - 1])


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv', '.tsv'])
def test_files_become_rows(tmp_path, word_tokenizer, suffix):
    source = write(tmp_path, EXAMPLES, suffix)
    data = config(source)
    labels = label_names(data)
    assert labels == ('bad', 'good')
    found = read_rows(data, labels, word_tokenizer)
    assert [r.label for r in found] == [1, 0, 1]
    assert [text(r, word_tokenizer).replace('[UNK]', '').split() for r in found] == [
        ['w1', 'w2', 'w3'],
        ['w4'],
        ['w5', 'w6'],
    ]
    assert all(
        r.first_length == r.length
        and r.tokens[0] == word_tokenizer.cls
        and r.tokens[r.length - 1] == word_tokenizer.sep
        for r in found
    )
    assert make_rows(data, 'train', labels, word_tokenizer).shape == (3, 4 + 16)


def test_quotes_in_tsv_are_ordinary_characters(tmp_path, word_tokenizer):
    (tmp_path / 'train.tsv').write_text('text\tlabel\n"w1\t0\nw2" w3\t1\n')
    found = read_rows(config(f'{tmp_path}/{{split}}.tsv'), ('0', '1'), word_tokenizer)
    assert [r.label for r in found] == [0, 1]


def test_field_and_split_names_can_be_configured(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'body': 'w7', 'kind': 'a', 'text': 'w1'}], '.jsonl', split='dev')
    data = config(source, text='body', label='kind', train_split='dev')
    assert label_names(data) == ('a',)
    (row,) = read_rows(data, ('a', 'b'), word_tokenizer, 'dev')
    assert text(row, word_tokenizer) == 'w7'


def test_files_of_a_glob_are_read_in_sorted_order(tmp_path, word_tokenizer):
    for name, word in (('b', 'w2'), ('a', 'w1')):
        write(tmp_path, [{'text': word, 'label': 0}], '.jsonl', split=f'train-{name}')
    found = read_rows(config(f'{tmp_path}/{{split}}-*.jsonl'), ('0', '1'), word_tokenizer)
    assert [text(r, word_tokenizer) for r in found] == ['w1', 'w2']


def test_one_record_without_a_label_is_named(tmp_path, word_tokenizer):
    first, second = EXAMPLES[0], {'text': 'w4'}
    data = config(write(tmp_path, [first, second], '.jsonl'))
    message = (
        r"line 2, has no label in the field 'label', unlike those before it\. Add one, or remove the record"
    )
    for use in (
        lambda: label_names(data),
        lambda: make_rows(data, 'train', ('good', 'bad'), word_tokenizer),
        lambda: labeled.encode_floats(records.read(data.source, 'train'), data),
    ):
        with pytest.raises(UserError, match=message):
            use()
    data = config(write(tmp_path, [second, first], '.jsonl'))
    with pytest.raises(UserError, match=r"line 1, has no field 'label': .* Set data\.label"):
        label_names(data)


def test_about_as_many_labels_as_examples_are_an_error(tmp_path):
    sentences = [f'{i} {"w1 " * 30}' for i in range(30)]
    data = config(write(tmp_path, [{'text': 'w1', 'label': s} for s in sentences], '.jsonl'))
    message = r"has 30 different labels in the field 'label' of 30 examples: '0 w1 .*, and 25 more\. Set data\.label"
    with pytest.raises(UserError, match=message) as error:
        label_names(data)
    assert sentences[0] not in str(error.value)


def test_few_examples_of_each_class_suffice(tmp_path):
    examples = [{'text': 'w1', 'label': f'c{i // 2}'} for i in range(60)]
    assert len(label_names(config(write(tmp_path, examples, '.jsonl')))) == 30


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_integer_labels_are_classes(tmp_path, word_tokenizer, suffix):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (2, 0, 2, 1)], suffix)
    labels = label_names(config(source))
    assert labels == ('0', '1', '2')
    assert [r.label for r in read_rows(config(source), labels, word_tokenizer)] == [2, 0, 2, 1]


def test_integer_labels_need_not_start_at_zero(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (12, 1, 3)], '.jsonl')
    assert label_names(config(source)) == ('1', '3', '12')
    assert [r.label for r in read_rows(config(source), ('1', '3', '12'), word_tokenizer)] == [2, 0, 1]


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
@pytest.mark.parametrize(
    ('label_names', 'model_names', 'expected'),
    [
        (('no', 'yes'), ('no', 'yes'), [1, 0]),
        (('entailment', 'neutral', 'contradiction'), ('contradiction', 'entailment', 'neutral'), [2, 1]),
        ((), ('LABEL_0', 'LABEL_1'), [1, 0]),
        (('no', 'yes'), ('LABEL_0', 'LABEL_1'), [1, 0]),
    ],
)
def test_numbers_match_classes_by_their_names(
    tmp_path, word_tokenizer, suffix, label_names, model_names, expected
):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (1, 0)], suffix)
    data = config(source, label_names=label_names)
    assert [r.label for r in read_rows(data, model_names, word_tokenizer)] == expected
    if label_names:
        assert labeled.label_names(data) == label_names


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_numbers_without_names_do_not_match_names(tmp_path, word_tokenizer, suffix):
    """The order of the names may be another."""
    source = write(tmp_path, [{'text': 'w1', 'label': 0}], suffix)
    message = r'line \d, has the number 0 as its label, but the classes have the names negative, positive\. Set data\.label_names'
    with pytest.raises(UserError, match=message):
        read_rows(config(source), ('negative', 'positive'), word_tokenizer)


def test_names_do_not_match_numbers(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': 'w1', 'label': 'good'}], '.jsonl')
    with pytest.raises(UserError, match="line 1, has the unknown label 'good': known: 0, 1"):
        read_rows(config(source), ('0', '1'), word_tokenizer)


@pytest.mark.parametrize('label', [2, -1, '2', '-1'])
def test_number_without_a_name_raises(tmp_path, word_tokenizer, label):
    source = write(tmp_path, [{'text': 'w1', 'label': label}], '.jsonl')
    with pytest.raises(UserError, match=f'has the label {label}, but there are 2 classes, 0 to 1'):
        read_rows(config(source, label_names=('no', 'yes')), ('no', 'yes'), word_tokenizer)


def test_numbers_of_equal_value_are_one_class(tmp_path, word_tokenizer):
    write(tmp_path, [{'text': 'w1', 'label': i} for i in ('1.0', '2.0', '3.00', '-0')], '.csv')
    labels = label_names(config(f'{tmp_path}/{{split}}.csv'))
    assert labels == ('0', '1', '2', '3')
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in ('1', 2, 3.0, '3.0')], '.jsonl', 'test')
    assert [r.label for r in read_rows(config(source), labels, word_tokenizer, 'test')] == [1, 2, 3, 3]


@pytest.mark.parametrize('name', ['007', '+1', '1e0', '1_0', '\u0661', 'nan'])
def test_text_that_is_no_plain_number_is_a_name(tmp_path, word_tokenizer, name):
    source = write(tmp_path, [{'text': 'w1', 'label': label} for label in ('7', name, 'x')], '.csv')
    labels = label_names(config(source))
    assert {*labels} == {'7', name, 'x'}
    assert [labels[r.label] for r in read_rows(config(source), labels, word_tokenizer)] == ['7', name, 'x']


def test_names_match_ignoring_case_if_unique(tmp_path, word_tokenizer):
    source = write(
        tmp_path, [{'text': 'w1', 'label': label} for label in ('Good', 'BAD', 'a', 'A')], '.jsonl'
    )
    assert [r.label for r in read_rows(config(source), ('bad', 'good', 'A', 'a'), word_tokenizer)] == [
        1,
        0,
        3,
        2,
    ]


def test_classes_that_differ_in_case_are_logged(tmp_path, caplog):
    source = write(tmp_path, [{'text': 'w1', 'label': label} for label in ('Good', 'bad', 'good')], '.csv')
    assert label_names(config(source)) == ('Good', 'bad', 'good')
    assert "The classes 'Good' and 'good' differ only in case" in caplog.text


@pytest.mark.parametrize('per_token', [False, True])
def test_numbers_among_names_raise(tmp_path, per_token):
    labels = ['a', 'b', 3]
    examples = [{'label': labels[:i] if per_token else labels[i - 1]} for i in (1, 2, 3)]
    source = write(tmp_path, examples, '.jsonl')
    message = "line 3, has a number as its label, but .*line 1, has the name 'a'"
    with pytest.raises(UserError, match=message):
        label_names(config(source), per_token)


def test_hidden_label_among_classes_raises(tmp_path, word_tokenizer):
    """-1 usually means that an example is unlabeled, but it may be a class."""
    source = write(tmp_path, [{'text': 'w1', 'label': label} for label in (1, 0, -1, -1)], '.jsonl')
    message = r"line 3, has the label -1, .*There are 2 labels -1 .*set task\.labels=\('-1', '0', '1'\)"
    with pytest.raises(UserError, match=message):
        label_names(config(source))
    assert [r.label for r in read_rows(config(source), ('-1', '0', '1'), word_tokenizer)] == [2, 1, 0, 0]


def test_minus_one_without_zero_is_a_class(tmp_path):
    source = write(tmp_path, [{'text': 'w1', 'label': label} for label in (1, -1)], '.jsonl')
    assert label_names(config(source)) == ('-1', '1')


def test_class_ids_follow_the_order_of_the_names(tmp_path, word_tokenizer):
    source = write(tmp_path, EXAMPLES, '.jsonl')
    assert [r.label for r in read_rows(config(source), ('good', 'bad'), word_tokenizer)] == [0, 1, 0]


def test_whole_number_floats_are_integer_labels(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (1.0, 3.0, 1)], '.jsonl')
    labels = label_names(config(source))
    assert labels == ('1', '3')
    assert [r.label for r in read_rows(config(source), labels, word_tokenizer)] == [0, 1, 0]


def test_spaces_around_labels_are_stripped(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': 'w1', 'label': label} for label in ('no', ' no', 'yes ')], '.jsonl')
    labels = label_names(config(source))
    assert labels == ('no', 'yes')
    assert [r.label for r in read_rows(config(source), labels, word_tokenizer)] == [0, 0, 1]


@pytest.mark.parametrize('per_token', [False, True])
@pytest.mark.parametrize(
    ('label', 'problem'),
    [
        (0.5, 'the number 0.5 as its label, neither a whole number nor a name'),
        (float('nan'), 'the number nan as its label, neither'),
        (float('inf'), 'the number inf as its label, neither'),
        ('0.5', "the text '0.5' as its label, neither"),
        (['a'], r"the list \['a'\] as its label, neither"),
        ({'a': 1}, "the object {'a': 1} as its label, neither"),
        ('', 'no label'),
        (' ', 'no label'),
        (None, 'no label'),
    ],
)
def test_labels_that_cannot_be_classes_are_named_with_their_line(tmp_path, label, problem, per_token):
    labels = ['a', label, 'b']
    examples = [{'text': 'w1', 'label': [x] if per_token else x} for x in labels]
    source = write(tmp_path, examples, '.jsonl')
    with pytest.raises(UserError, match=rf'train\.jsonl, line 2, has {problem}'):
        label_names(config(source), per_token)


@pytest.mark.parametrize('value', [True, False])
def test_booleans_are_classes(tmp_path, word_tokenizer, value):
    source = write(tmp_path, [{'text': 'w1', 'label': i} for i in (value, not value)], '.jsonl')
    labels = label_names(config(source))
    assert [r.label for r in read_rows(config(source), labels, word_tokenizer)] == [
        int(value),
        int(not value),
    ]


@pytest.mark.parametrize(('suffix', 'texts'), [('.csv', ('True', 'False')), ('.jsonl', ('true', 'FALSE'))])
def test_booleans_match_their_text_and_their_numbers(tmp_path, word_tokenizer, suffix, texts):
    boolean = write(tmp_path, [{'text': 'w1', 'label': label} for label in (True, False)], '.jsonl')
    text = write(tmp_path, [{'text': 'w1', 'label': label} for label in texts], suffix, 'test')
    labels = label_names(config(text, train_split='test'))
    assert [r.label for r in read_rows(config(boolean), labels, word_tokenizer)] == [1, 0]
    assert [r.label for r in read_rows(config(text), ('false', 'true'), word_tokenizer, 'test')] == [1, 0]
    assert [r.label for r in read_rows(config(boolean), ('0', '1'), word_tokenizer)] == [1, 0]


@pytest.mark.parametrize('label', [2, -1, 17])
def test_out_of_range_label_names_the_record(tmp_path, word_tokenizer, label):
    source = write(tmp_path, [{'text': 'w1', 'label': 0}, {'text': 'w2', 'label': label}], '.jsonl')
    with pytest.raises(UserError) as error:
        read_rows(config(source), ('0', '1'), word_tokenizer)
    assert str(error.value).startswith(f'{tmp_path}/train.jsonl, line 2, has the unknown label {label}: ')


@pytest.mark.parametrize('label', [0, 2, 4])
def test_unknown_number_is_not_used_as_an_index(tmp_path, word_tokenizer, label):
    source = write(tmp_path, [{'text': 'w1', 'label': label}], '.jsonl')
    with pytest.raises(UserError, match=f'has the unknown label {label}: known: 1, 3'):
        read_rows(config(source), ('1', '3'), word_tokenizer)


def test_truncated_texts_are_counted(tmp_path, word_tokenizer, caplog):
    examples = [{'text': ' '.join(['w1'] * n), 'label': 0} for n in (3, 10, 11)]
    source = write(tmp_path, examples, '.jsonl')
    with caplog.at_level('INFO'):
        read_rows(config(source, length=12), ('0', '1'), word_tokenizer)
    assert '1 of 3 examples are truncated to data.length=12 tokens' in caplog.text


def test_null_label_names_the_record(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': 'w1', 'label': None}], '.jsonl')
    with pytest.raises(UserError, match='line 1, has no label'):
        read_rows(config(source), ('0', '1'), word_tokenizer)


def test_unknown_label_suggests_the_closest_name(tmp_path, word_tokenizer):
    source = write(tmp_path, [*EXAMPLES, {'text': 'w2', 'label': 'goood'}], '.jsonl')
    with pytest.raises(UserError, match=r"line 4, has the unknown label 'goood': did you mean 'good'\?"):
        read_rows(config(source), ('bad', 'good'), word_tokenizer)
    source = write(tmp_path, [*EXAMPLES, {'text': 'w2', 'label': 'bored'}], '.jsonl')
    with pytest.raises(UserError, match=r"the unknown label 'bored': known: bad, good\."):
        read_rows(config(source), ('bad', 'good'), word_tokenizer)


def test_error_names_the_line_in_the_file_despite_shuffling(tmp_path, word_tokenizer):
    examples = [{'text': 'w1', 'label': int(i == 17) * 9} for i in range(30)]
    source = write(tmp_path, examples, '.jsonl')
    with pytest.raises(UserError, match='line 18, has the unknown label 9'):
        read_rows(config(source), ('0', '1'), word_tokenizer, limit=30)


@pytest.mark.parametrize(('fields', 'message'), [
    (dict(text='texts'), r"no field 'texts': did you mean 'text'\? Others: label\. Set data\.text\."),
    (dict(text_pair='other'), r"no field 'other': known: label, text\. Set data\.text_pair\."),
    (dict(label='labels'), r"no field 'labels': did you mean 'label'\?"),
])  # fmt: skip
def test_missing_field_is_named(tmp_path, word_tokenizer, fields, message):
    data = config(write(tmp_path, EXAMPLES, '.jsonl'), **fields)
    with pytest.raises(UserError, match=message):
        read_rows(data, ('bad', 'good'), word_tokenizer)


def test_label_names_reports_a_missing_label_field(tmp_path):
    data = config(write(tmp_path, EXAMPLES, '.jsonl'), label='labels')
    with pytest.raises(UserError, match=r"no field 'labels'.*label'?"):
        label_names(data)


@pytest.mark.parametrize('late', [{'text': 'w2'}, {'label': 'bad'}])
def test_field_missing_in_a_later_record_names_it(tmp_path, word_tokenizer, late):
    source = write(tmp_path, [*EXAMPLES, late], '.jsonl')
    with pytest.raises(UserError, match='line 4,.*(text|label)'):
        read_rows(config(source), ('bad', 'good'), word_tokenizer)


def test_null_text_raises(tmp_path, word_tokenizer):
    source = write(tmp_path, [*EXAMPLES, {'text': None, 'label': 'bad'}], '.jsonl')
    with pytest.raises(UserError, match="line 4,.*'text'"):
        read_rows(config(source), ('bad', 'good'), word_tokenizer)


def test_short_table_row_raises(tmp_path, word_tokenizer):
    (tmp_path / 'train.csv').write_text('label,text\ngood,w1\nbad\n')
    with pytest.raises(UserError, match='line 3 has one column, but the header has 2'):
        read_rows(config(f'{tmp_path}/{{split}}.csv'), ('bad', 'good'), word_tokenizer)


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.jsonl'])
def test_byte_order_mark_is_ignored(tmp_path, word_tokenizer, suffix):
    source = write(tmp_path, EXAMPLES, suffix, encoding='utf-8-sig')
    assert [r.label for r in read_rows(config(source), ('bad', 'good'), word_tokenizer)] == [1, 0, 1]


def test_unpaired_surrogate_is_replaced(tmp_path, word_tokenizer):
    (tmp_path / 'train.jsonl').write_text('{"text": "w1 \\ud800 w2", "label": 0}')
    (row,) = read_rows(config(f'{tmp_path}/{{split}}.jsonl'), ('0', '1'), word_tokenizer)
    assert text(row, word_tokenizer).split()[0::2] == ['w1', 'w2']


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.jsonl'])
def test_invalid_utf8_names_the_file(tmp_path, word_tokenizer, suffix):
    source = write(tmp_path, EXAMPLES, suffix)
    (tmp_path / f'train{suffix}').write_bytes((tmp_path / f'train{suffix}').read_bytes() + b'\xe9')
    with pytest.raises(UserError, match='train'):
        read_rows(config(source), ('bad', 'good'), word_tokenizer)


def test_long_table_field_is_read(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': 'w1 ' * 60_000, 'label': 0}], '.csv')
    (row,) = read_rows(config(source), ('0', '1'), word_tokenizer)
    assert row.length == 16


@pytest.mark.parametrize(
    ('line', 'message'), [('{"text"', r'line 2 is not JSON'), ('[1]', r'line 2 is not a JSON object')]
)
def test_invalid_json_names_the_line(tmp_path, word_tokenizer, line, message):
    (tmp_path / 'train.jsonl').write_text('{"text": "w1", "label": 0}\n' + line + '\n')
    with pytest.raises(UserError, match=r'train\.jsonl, ' + message):
        read_rows(config(f'{tmp_path}/{{split}}.jsonl'), ('0', '1'), word_tokenizer)


def write_real_labels(folder, suffix, labels):
    """Write a training split whose labels are real numbers; return the value of `data.source`."""
    texts = [f'w{i}' for i in range(len(labels))]
    if suffix == '.csv':
        return write(folder, [{'text': t, 'label': n} for t, n in zip(texts, labels, strict=True)], suffix)
    columns = {'text': texts, 'label': pyarrow.array(labels, pyarrow.float64())}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / 'train.parquet')
    return f'{folder}/{{split}}.parquet'


@pytest.mark.parametrize('suffix', ['.csv', '.parquet'])
def test_real_numbers_are_classes_only_if_all_are_whole(tmp_path, suffix, caplog):
    data = config(write_real_labels(tmp_path, suffix, [2.0, 1.0, 2.0]))
    assert label_names(data) == ('1', '2')
    assert 'are real numbers, such as 1.0, and become 2 classes' in caplog.text
    data = config(write_real_labels(tmp_path, suffix, [2.0, 1.0, 2.5]))
    with pytest.raises(UserError, match=r'2\.5.*neither a whole number nor a name.*task regress'):
        label_names(data)


@pytest.mark.parametrize(('label', 'name'), [('2.00e+00', '2'), ('-.0', '0'), ('.5', ''), ('5.00e-01', '')])
def test_text_of_a_real_number_is_no_name(label, name):
    if name:
        assert labeled.class_name(label, 'line 1') == name
    else:
        with pytest.raises(UserError, match='neither a whole number nor a name'):
            labeled.class_name(label, 'line 1')


def test_missing_file_source_or_examples_raise(tmp_path, word_tokenizer):
    source = f'{tmp_path}/{{split}}.jsonl'
    with pytest.raises(UserError, match=r'No file matches .*train\.jsonl.*Set data\.source'):
        read_rows(config(source), ('0', '1'), word_tokenizer)
    with pytest.raises(
        UserError, match=r"data\.source is empty\. Set it to a TFDS name such as 'glue/sst2', or to files"
    ):
        read_rows(config(''), ('0', '1'), word_tokenizer)
    (tmp_path / 'train.jsonl').write_text('\n')
    with pytest.raises(UserError, match=r'train\.jsonl has no examples\. Check data\.source'):
        read_rows(config(source), ('0', '1'), word_tokenizer)


def test_label_names_of_an_empty_file_raise(tmp_path):
    (tmp_path / 'train.jsonl').write_text('\n')
    with pytest.raises(UserError, match='has no examples'):
        label_names(config(f'{tmp_path}/{{split}}.jsonl'))


def numbered_words(start, n):
    return ' '.join(f'w{start + i}' for i in range(n))


@pytest.mark.parametrize(
    ('a', 'b', 'kept'), [(3, 4, (3, 4)), (20, 3, (10, 3)), (3, 20, (3, 10)), (20, 20, (7, 6))]
)
def test_pairs_are_truncated_at_their_ends_longer_first(tmp_path, word_tokenizer, a, b, kept):
    source = write(
        tmp_path, [{'one': numbered_words(0, a), 'two': numbered_words(100, b), 'label': 0}], '.jsonl'
    )
    (row,) = read_rows(config(source, text='one', text_pair='two'), ('0', '1'), word_tokenizer)
    first, second = word_tokenizer.encode([numbered_words(0, kept[0]), numbered_words(100, kept[1])])
    assert row.tokens[: row.length].tolist() == [
        word_tokenizer.cls,
        *first,
        word_tokenizer.sep,
        *second,
        word_tokenizer.sep,
    ]
    assert row.first_length == kept[0] + 2
    assert len(row.tokens) == 16


@pytest.mark.parametrize(('n', 'kept'), [(14, 14), (15, 14), (40, 14), (0, 0)])
def test_single_text_is_truncated_at_its_end(tmp_path, word_tokenizer, n, kept):
    source = write(tmp_path, [{'text': numbered_words(0, n), 'label': 0}], '.jsonl')
    (row,) = read_rows(config(source), ('0', '1'), word_tokenizer)
    assert text(row, word_tokenizer) == numbered_words(0, kept)
    assert row.length == kept + 2


def test_limit_takes_a_fixed_random_subset(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': f'w{i}', 'label': i % 2} for i in range(100)], '.jsonl')

    def subset(limit):
        return [
            int(text(r, word_tokenizer)[1:])
            for r in read_rows(config(source), ('0', '1'), word_tokenizer, limit=limit)
        ]

    assert subset(0) == list(range(100))
    ten, twenty = subset(10), subset(20)
    assert ten == subset(10)
    assert len(set(twenty)) == 20
    assert twenty[:10] == ten, 'a larger subset contains a smaller one'
    assert ten != sorted(ten)
    assert sorted(subset(1000)) == list(range(100))


def test_subset_keeps_labels_with_their_texts(tmp_path, word_tokenizer):
    source = write(tmp_path, [{'text': f'w{i}', 'label': i % 3} for i in range(50)], '.jsonl')
    for row in read_rows(config(source), ('0', '1', '2'), word_tokenizer, limit=20):
        assert row.label == int(text(row, word_tokenizer)[1:]) % 3


class DigitNames:
    """A TFDS feature whose class names are digits, such as the stars of reviews."""

    names = ['1', '2']
    num_classes = 2


def test_class_numbers_of_a_data_set_take_precedence_over_digit_names(monkeypatch, word_tokenizer):
    examples = [{'text': 'w1', 'label': i} for i in (0, 1, 1, 0)]
    monkeypatch.setattr(labeled.tfds_data, 'load_features', lambda _: {'text': None, 'label': DigitNames()})
    monkeypatch.setattr(records.tfds_data, 'load_examples', lambda *_: examples)
    data = config('stars')
    labels = label_names(data)
    assert labels == ('1', '2')
    assert [r.label for r in read_rows(data, labels, word_tokenizer)] == [0, 1, 1, 0]


def test_tfds_data_set(sst2, word_tokenizer):
    data = config(sst2, text='sentence', length=32)
    labels = label_names(data)
    assert labels == ('negative', 'positive')
    found = make_rows(data, 'validation', labels, word_tokenizer)
    assert found.shape == (872, 4 + 32)
    assert np.bincount(found[:, 2]).tolist() == [428, 444]


def test_hidden_test_labels_raise(sst2, word_tokenizer):
    with pytest.raises(
        UserError, match=r'example 0 of glue/sst2.* has the label -1, but there are 2 classes'
    ):
        make_rows(config(sst2, text='sentence'), 'test[:20]', ('negative', 'positive'), word_tokenizer)


@pytest.mark.parametrize(
    ('dataset_names', 'model_names', 'expected'),
    [
        (('no', 'yes'), ('no', 'yes'), [0, 1]),
        (('no', 'yes'), ('yes', 'no'), [1, 0]),
        (('no', 'yes'), ('YES', 'MAYBE', 'NO'), [2, 0]),
        (('a', 'A'), ('A', 'a'), [1, 0]),
        (('no', 'yes'), ('LABEL_0', 'LABEL_1'), [0, 1]),
        ((), ('LABEL_0', 'LABEL_1'), [0, 1]),
    ],
)
def test_classes_match_by_name_or_else_by_number(monkeypatch, dataset_names, model_names, expected):
    monkeypatch.setattr(labeled, '_numbered_names', lambda data: dataset_names)
    label_map = labeled.LabelMap(LabeledConfig('glue/rte'), model_names)
    assert [label_map.class_id(i, 'a') for i in range(2)] == expected


def test_model_with_other_classes_raises(monkeypatch):
    monkeypatch.setattr(labeled, '_numbered_names', lambda data: ('no', 'yes'))
    with pytest.raises(UserError, match='has the classes no, yes, but the model has a, b, c'):
        labeled.LabelMap(LabeledConfig('glue/rte'), ('a', 'b', 'c'))


def test_numbers_of_a_data_set_without_names_match_by_value(monkeypatch, word_tokenizer):
    examples = [{'text': 'w1', 'label': i} for i in (1, 3, 2)]
    monkeypatch.setattr(labeled.tfds_data, 'load_features', lambda _: {'text': None, 'label': None})
    monkeypatch.setattr(records.tfds_data, 'load_examples', lambda *_: examples)
    labels = label_names(config('stars'))
    assert labels == ('1', '2', '3')
    assert [r.label for r in read_rows(config('stars'), labels, word_tokenizer)] == [0, 2, 1]


def test_repeated_name_of_a_class_raises():
    with pytest.raises(UserError, match='repeats a name'):
        LabeledConfig('x', label_names=('a', 'a'))


@pytest.mark.parametrize(('label', 'expected'), [(3, 3.0), ('3.8', 3.8), (' -1e-3 ', -0.001), ('.5', 0.5)])
def test_real_labels(label, expected):
    (bits,) = labeled.encode_floats([records.Record('a', {'label': label})], LabeledConfig())
    assert labeled.decode_float(bits) == np.float32(expected)


@pytest.mark.parametrize(
    'label', ['3,8', 'nan', '', '1_0', 'inf', float('nan'), 10**400, 1e39, True, None, [3], '0x1', '\u0663']
)
def test_labels_that_are_no_numbers_raise(label):
    with pytest.raises(UserError, match=r'line 1, has .* as its label, not a finite number such as 3\.8'):
        labeled.encode_floats([records.Record('line 1,', {'label': label})], LabeledConfig())


def test_names_of_classes_have_no_effect_on_real_labels():
    with pytest.raises(UserError, match='has no effect on real numbers'):
        labeled.encode_floats([], LabeledConfig(label_names=('a', 'b')))
