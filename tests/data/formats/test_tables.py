"""Tables are read strictly; the delimiter and spaces after it are detected and logged."""

import io

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.formats import common, tables


def read(text, path='a.csv'):
    common.log_once.cache_clear()
    return list(tables.read(io.StringIO(text, newline=''), path))


def read_fields(text, path='a.csv'):
    return [fields for _, fields in read(text, path)]


@pytest.mark.parametrize(
    ('text', 'path', 'logged'),
    [
        ('text,label\n"a, ""b""\nc",x\nd;e,y\n', 'a.csv', ''),
        ('text;label\n"a, ""b""\nc";x\n"d;e";y\n', 'a.csv', 'separated by semicolons'),
        ('text\tlabel\n"a, ""b""\nc"\tx\nd;e\ty\n', 'a.CSV', 'separated by tabs'),
        ('text, label\n"a, ""b""\nc", x\nd;e, y\n', 'a.csv', 'spaces after commas are ignored'),
        ('label,text\nx, "a, ""b""\nc"\ny, d;e\n', 'a.csv', 'spaces after commas are ignored'),
        ('text,label\n"a, ""b""\nc",x\nd;e,y\n', 'a.tsv', 'separated by commas'),
        ('\ntext,label\r\n\r\n"a, ""b""\nc",x\r\nd;e,y\r\n', 'a.csv', ''),
    ],
)
def test_dialects(text, path, logged, caplog):
    caplog.set_level('INFO')
    assert read_fields(text, path) == [
        {'text': 'a, "b"\nc', 'label': 'x'},
        {'text': 'd;e', 'label': 'y'},
    ]
    assert logged in caplog.text
    assert bool(caplog.text) == bool(logged)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('text\na;b\nc\n', [{'text': 'a;b'}, {'text': 'c'}]),
        ('text,label\na;b,1\n', [{'text': 'a;b', 'label': '1'}]),
        (',text,label,\n0,a,x,\n', [{'text': 'a', 'label': 'x'}]),  # an index and an empty column
        ('text,label\nHe said "no",x\n', [{'text': 'He said "no"', 'label': 'x'}]),
        ('text,label\n a,x\n', [{'text': ' a', 'label': 'x'}]),
        ('text,label\n', []),
        ('', []),
    ],
)
def test_plain_tables(text, expected):
    assert read_fields(text) == expected


def test_quotation_marks_have_no_meaning_in_tsv():
    assert read_fields('text\tlabel\n"a\t0\nb" c\t1\n', 'a.tsv') == [
        {'text': '"a', 'label': '0'},
        {'text': 'b" c', 'label': '1'},
    ]


def test_rows_are_numbered_by_their_first_line():
    assert [place for place, _ in read('a,b\n\n"x\ny",1\nz,2\n')] == ['line 3', 'line 5']


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        ('label,text\npos,"good, he said\nneg,dull\npos,"A "must" this year"\nneg,bad\n', 2),
        ('label,text\npos,good\nneg,"never again\npos,lovely\n', 3),
        ('label,text\n' + 'pos,good\n' * 100 + 'neg,"never" again\n', 102),
    ],
)
def test_unbalanced_quotation_marks_are_an_error_with_the_line(text, line):
    with pytest.raises(UserError, match=rf"'a\.csv', line {line} is not a valid table row.*quotation marks"):
        read(text)


@pytest.mark.parametrize(
    ('text', 'path', 'problem'),
    [
        ('text,label\na,b,x\nc,y\n', 'a.csv', 'has 3 columns, but the header has 2. Quote texts'),
        (
            'text,label\nx\nc,y\n',
            'a.csv',
            'has one column, but the header has 2. Quote texts that contain commas',
        ),
        ('text;label\na;b;x\nc;y\n', 'a.csv', 'Quote texts that contain semicolons'),
        ('text\tlabel\na\tb\tx\nc\ty\n', 'a.tsv', 'Remove tabs and line breaks from texts'),
    ],
)
def test_rows_of_another_width_are_invalid(text, path, problem):
    (place, invalid), (_, valid) = read(text, path)
    assert place == 'line 2'
    assert problem in invalid.problem
    assert valid == {'text': 'c', 'label': 'y'}


def test_columns_of_one_name_are_an_error():
    with pytest.raises(UserError, match=r"'a\.csv' has 2 columns with the name 'text'"):
        read('text,text,label\ngood,first,1\n')


@pytest.mark.parametrize('text', ['te\udce9xt,label\na,b\n', 'text\0,label\na,b\n'])
def test_header_that_is_not_utf8_is_an_error(text):
    with pytest.raises(UserError, match='is not UTF-8'):
        read(text)
