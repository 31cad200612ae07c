"""Sources lose no text, need bounded memory and name what is wrong with their input."""

import bz2
import gzip
import json
import lzma
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import sources

LIMIT = sources.MAX_DOCUMENT_CHARS


def read(path, text_key='text'):
    return [d.paragraphs for d in sources.read_documents(str(path), 'train', text_key)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_blank_lines_separate_documents_of_a_text_file(tmp_path):
    file = write(tmp_path / 'a.txt', '\n\nOne.\n Two. \n\n  \t\nThree.\n\n')
    assert read(file) == [['One.', 'Two.'], ['Three.']]


def test_last_line_needs_no_line_end(tmp_path):
    assert read(write(tmp_path / 'a.txt', 'One.\n\nTwo.')) == [['One.'], ['Two.']]


def test_windows_line_ends(tmp_path):
    file = write(tmp_path / 'a.txt', 'One.\r\nTwo.\r\n\r\nThree.\r\n')
    assert read(file) == [['One.', 'Two.'], ['Three.']]


def test_gzip_contains_the_same_documents(tmp_path):
    text = 'One.\nTwo.\n\nThree é.\n' * 100
    plain, packed = (
        write(tmp_path / 'a.txt', text),
        write(tmp_path / 'b.txt.gz', gzip.compress(text.encode())),
    )
    assert read(packed) == read(plain)
    assert len(read(packed)) == 101


def test_jsonl_record_is_a_document(tmp_path):
    records = [{'text': 'One.\nTwo.\n\nStill one.'}, {'text': ''}, {'text': 'Three é.', 'more': 3}]
    file = write(tmp_path / 'a.jsonl', '\n\n'.join(json.dumps(r) for r in records) + '\n')
    assert read(file) == [['One.', 'Two.', 'Still one.'], ['Three é.']]


def test_long_jsonl_line_is_read_completely(tmp_path):
    text = 'kite ' * LIMIT
    file = write(tmp_path / 'a.jsonl', json.dumps({'text': text}) + '\n' + json.dumps({'text': 'end'}))
    found = read(file)
    assert found[-1] == ['end']
    assert ''.join(p for d in found[:-1] for p in d).count('k') == LIMIT


def test_glob_reads_files_in_order_as_separate_documents(tmp_path):
    for name in ('b.txt', 'a.txt', 'c.md'):
        write(tmp_path / name, f'From {name}')
    (tmp_path / 'in').mkdir()
    write(tmp_path / 'in' / 'd.txt', 'From d.txt')
    assert read(tmp_path / '*.txt') == [['From a.txt'], ['From b.txt']]
    assert read(f'{tmp_path}/**/*.txt') == [['From a.txt'], ['From b.txt'], ['From d.txt']]
    assert read(f'{tmp_path}/*') == [['From a.txt'], ['From b.txt']]
    assert read(f'{tmp_path}/*.md') == [['From c.md']]


def test_file_without_a_suffix_is_text(tmp_path):
    assert read(write(tmp_path / 'README', 'One.\n\nTwo.')) == [['One.'], ['Two.']]


def test_file_name_that_looks_like_a_glob(tmp_path):
    assert read(write(tmp_path / 'book[1].txt', 'One.')) == [['One.']]


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl'])
def test_empty_file_has_no_documents(tmp_path, name):
    assert read(write(tmp_path / name, '')) == []


def test_empty_gzip_has_no_documents(tmp_path):
    assert read(write(tmp_path / 'a.txt.gz', gzip.compress(b''))) == []


def test_invalid_utf8_is_replaced_and_logged(tmp_path, caplog):
    file = write(tmp_path / 'a.txt', 'Ein Caf\xe9 hier.\nUnd mehr.'.encode('latin-1'))
    assert read(file) == [['Ein Caf\ufffd hier.', 'Und mehr.']]
    assert 'contains invalid UTF-8' in caplog.text


def test_nul_byte_is_an_error(tmp_path):
    with pytest.raises(UserError, match='contains a NUL byte'):
        read(write(tmp_path / 'a.txt', 'One.\n\nTw\0o.'))


def test_byte_order_mark_is_dropped(tmp_path):
    assert read(write(tmp_path / 'a.txt', 'One.\n\nTwo.'.encode('utf-8-sig'))) == [['One.'], ['Two.']]
    assert read(write(tmp_path / 'a.jsonl', '{"text": "One."}'.encode('utf-8-sig'))) == [['One.']]


def texts(found):
    return [''.join(d) for d in found]


def long_line(characters):
    rng = np.random.default_rng(0)
    return ''.join(rng.choice(list(characters), 5 * LIMIT + 77))


def test_huge_line_is_split_into_documents_under_the_limit(tmp_path):
    line = long_line('abcdefgh')
    found = texts(read(write(tmp_path / 'a.txt', line)))
    assert max(map(len, found)) <= LIMIT
    assert ''.join(found) == line
    assert len(found) < 12


@pytest.mark.parametrize('packed', [False, True])
def test_huge_line_is_cut_between_multibyte_characters(tmp_path, packed):
    line = 'a' + long_line('é語🪁')
    data = line.encode()
    file = write(tmp_path / 'a.txt.gz', gzip.compress(data, 1)) if packed else write(tmp_path / 'a.txt', data)
    found = texts(read(file))
    assert max(map(len, found)) <= LIMIT
    assert ''.join(found) == line


@pytest.mark.parametrize('separator', ['\n', ' '])
def test_huge_document_is_streamed(tmp_path, separator):
    file = write(tmp_path / 'a.txt', separator.join(['x' * 1000] * 3000))
    assert next(sources.read_documents(str(file), 'train', 'text')).progress < 0.2


def test_long_document_is_cut_between_lines(tmp_path):
    lines = [f'line {i} ' + 'x' * 1000 for i in range(300)]
    found = read(write(tmp_path / 'a.txt', '\n'.join(lines)))
    assert len(found) > 300_000 // LIMIT
    assert max(map(len, texts(found))) <= LIMIT
    assert min(map(len, texts(found[:-1]))) > LIMIT - 2 * len(lines[-1]), 'a part is too short'
    assert [p for d in found for p in d] == lines


@given(st.lists(st.integers(0, 3 * LIMIT), max_size=6), st.integers(0, 3))
def test_cutting_loses_nothing(sizes, seed):
    letters = np.random.default_rng(seed).integers(97, 123, sum(sizes)).astype(np.uint8).tobytes().decode()
    lines, start = [], 0
    for size in sizes:
        lines.append(letters[start : start + size])
        start += size
    found = list(sources._make_documents(lines, 0.5, False))
    assert [d.is_continuation for d in found] == [i > 0 for i in range(len(found))]
    assert ''.join(p for d in found for p in d.paragraphs) == letters
    assert all(0 < sum(map(len, d.paragraphs)) <= LIMIT for d in found)
    assert all(d.paragraphs and all(d.paragraphs) for d in found)


@pytest.mark.parametrize('suffix', ['.txt', '.txt.gz', '.jsonl'])
def test_progress_increases_to_1_over_all_files(tmp_path, suffix):
    for name, n in (('a', 30), ('b', 90)):
        lines = [f'Line {i} ' + 'x' * 100 for i in range(n)]
        data = '\n\n'.join(json.dumps({'text': x}) if suffix == '.jsonl' else x for x in lines).encode()
        write(tmp_path / f'{name}{suffix}', gzip.compress(data) if suffix.endswith('gz') else data)
    progress = [d.progress for d in sources.read_documents(f'{tmp_path}/*{suffix}', 'train', 'text')]
    assert len(progress) == 120
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert 0 < progress[29] < 0.4


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'not gzip'])
def test_damaged_gzip_is_named(tmp_path, damage):
    data = gzip.compress(b''.join(b'Line %d.\n' % i for i in range(20_000)))
    data = {'cut': data[:-300], 'flipped': data[:500] + b'\xff\xff\xff' + data[503:], 'not gzip': b'plain'}[
        damage
    ]
    with pytest.raises(
        UserError, match=r"b\.txt\.gz' is damaged or not a gzip file \(.+\)\. Download it again"
    ):
        read(write(tmp_path / 'b.txt.gz', data))


@pytest.mark.parametrize('line', ['{"text": "a"', 'kite', '{"text": "a"} {}'])
def test_invalid_json_line_is_named_with_its_number(tmp_path, line):
    file = write(tmp_path / 'a.jsonl', '{"text": "a"}\n\n' + line + '\n')
    with pytest.raises(
        UserError, match=r'a\.jsonl, line 3 is not JSON \(.+\)\. Write one JSON object per line'
    ):
        read(file)


@pytest.mark.parametrize('record', ['[1]', '"text"', '3', 'null'])
def test_json_line_that_is_not_an_object_is_named(tmp_path, record):
    with pytest.raises(UserError, match=r'a\.jsonl, line 1 is not a JSON object'):
        read(write(tmp_path / 'a.jsonl', record))


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('a.json', '[{"text": "One.\\nTwo."}, {"text": "Three."}]'),
        ('a.CSV', 'text;n\n"One.\nTwo.";1\nThree.;2\n'),
        ('a.jsonl.xz', lzma.compress(b'{"text": "One.\\nTwo."}\n{"text": "Three."}\n')),
        ('a.TXT.bz2', bz2.compress(b'One.\nTwo.\n\nThree.')),
    ],
)
def test_formats_of_records_and_compression(tmp_path, name, content):
    assert read(write(tmp_path / name, content)) == [['One.', 'Two.'], ['Three.']]


@pytest.mark.parametrize('value', ['3', 'NaN', 'null', '["a"]', '{"en": "a"}', 'true'])
def test_text_of_another_type_is_named(tmp_path, value):
    file = write(tmp_path / 'a.jsonl', f'{{"text": "a"}}\n{{"text": {value}}}\n')
    with pytest.raises(
        UserError, match=r"a\.jsonl, line 2 has no text field 'text', but one of the type \w+"
    ):
        read(file)


def test_labeled_words_are_not_documents(tmp_path):
    with pytest.raises(UserError, match=r"a\.conll' holds words with labels, not documents"):
        read(write(tmp_path / 'a.conll', 'Anna B-PER\n'))


def test_pipe_is_rejected(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(UserError, match='is a pipe, which can be read only once'):
        read(tmp_path / 'pipe')


@pytest.mark.parametrize(
    'source', ['/nowhere', './nowhere', '~/nowhere/x', '/nowhere/a,b', '/nowhere.parquet']
)
def test_missing_paths_are_not_names_of_data_sets(source):
    with pytest.raises(UserError, match=rf"No file matches '{source}'"):
        read(source)


def test_missing_text_key_suggests_the_nearest(tmp_path):
    file = write(tmp_path / 'a.jsonl', json.dumps({'content': 'a', 'title': 'b', 'contents': 3}))
    message = r"line 1 has no text field 'contentx'\. Set data\.text_key: did you mean 'content'\?"
    with pytest.raises(UserError, match=message):
        read(file, 'contentx')
    with pytest.raises(
        UserError, match=r"no text field 'contents', but one of the type int.*did you mean 'content'\?"
    ):
        read(file, 'contents')


def test_jsonl_text_can_always_be_encoded(tmp_path, word_tokenizer):
    file = write(tmp_path / 'a.jsonl', '{"text": "half a pair \\ud800 here"}')
    (text,) = texts(read(file))
    assert text.encode().startswith(b'half a pair ')
    word_tokenizer.encode([text])


@pytest.mark.parametrize('source', ['nothing.txt', 'nothing*.md', 'nothing.txt.gz', 'nothing.jsonl'])
def test_missing_files_are_named(tmp_path, source):
    with pytest.raises(UserError, match=r'No file matches .*nothing.*\. Set a path or glob of'):
        read(tmp_path / source)


def test_folder_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r'is a folder\. Name the files in it, such as .*/\*\.txt'):
        read(tmp_path)


def test_compressed_jsonl_is_not_read_as_text(tmp_path):
    write(tmp_path / 'a.jsonl.gz', gzip.compress(b'{"text": "One."}\n'))
    try:
        assert read(tmp_path / 'a*') == [['One.']]
    except UserError as e:
        assert 'a.jsonl.gz' in str(e)


def test_folder_matched_by_a_glob_is_skipped_or_named(tmp_path):
    (tmp_path / 'folder').mkdir()
    write(tmp_path / 'g.txt', 'One.')
    try:
        assert read(tmp_path / '*') == [['One.']]
    except UserError as e:
        assert 'folder' in str(e)
