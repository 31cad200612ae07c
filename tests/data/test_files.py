"""Data files are found by literal path before glob, and read when compressed; damaged ones are named."""

import bz2
import gzip
import lzma

import pyarrow
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import files, formats

ZSTD = pyarrow.Codec('zstd')


def compress_zstd(data):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, 'zstd') as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {'.gz': gzip.compress, '.bz2': bz2.compress, '.xz': lzma.compress, '.zst': compress_zstd}


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('a/b.JSONL.Gz', ('.jsonl', '.gz')),
        ('b.CSV', ('.csv', '')),
        ('v1.2/b', ('', '')),
        ('b.gz', ('', '.gz')),
        ('b.tar.zst', ('.tar', '.zst')),
    ],
)
def test_suffixes_of_format_and_compression(path, expected):
    assert files.split_suffix(path) == expected


@pytest.mark.parametrize('folder', ['f[v1]', 'f a, b', 'f*', 'f?[!x]'])
def test_special_characters_in_folders_are_literal(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / 'fv').mkdir()
    for name in ('1.txt', '2.txt', '3.md'):
        (tmp_path / folder / name).write_text('x')
        (tmp_path / 'fv' / name).write_text('x')
    found = files.find_files(f'{tmp_path}/{folder}/*.txt')
    assert found == [f'{tmp_path}/{folder}/{i}.txt' for i in (1, 2)]
    assert files.find_files(found[0]) == found[:1]


def test_pattern_is_a_glob_if_nothing_has_this_name(tmp_path):
    for name in ('f1', 'f2'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.txt').write_text('x')
    assert files.find_files(f'{tmp_path}/f[12]/a.txt') == [f'{tmp_path}/f{i}/a.txt' for i in (1, 2)]
    assert files.find_files(f'{tmp_path}/g[12]/a.txt') == files.find_files(f'{tmp_path}') == []


def test_sources_with_commas_are_joined(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'f a, b').mkdir()
    (tmp_path / 'f a, b' / 'x,1.txt').write_text('x')
    parts = ('glue/sst2', 'f a', ' b/x', '1.txt', 'f a', ' b/*.txt', 'de=f a', ' b/x', '1.txt', 'c.txt')
    assert files.join_at_commas(parts) == (
        'glue/sst2',
        'f a, b/x,1.txt',
        'f a, b/*.txt',
        'de=f a, b/x,1.txt',
        'c.txt',
    )
    (tmp_path / 'a.txt').write_text('x')
    (tmp_path / 'a.txt,b.txt').write_text('x')
    assert files.join_at_commas(('a.txt', 'b.txt')) == ('a.txt', 'b.txt')


@pytest.mark.parametrize(
    'source',
    [
        '/nowhere',
        './a',
        '../a',
        '~/a',
        '{split}',
        'a/{split}.CSV',
        'a.jsonl',
        'b.TXT',
        'c.parquet',
        'd.gz',
        'e*',
        'here',
    ],
)
def test_what_looks_like_a_path_is_a_path(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here').write_text('x')
    assert formats.is_path(source)


@pytest.mark.parametrize('name', ['glue/sst2', 'wikipedia/20230601.en', 'pydocs/text', 'a/b'])
def test_names_of_data_sets_are_not_paths(tmp_path, monkeypatch, name):
    """Not even in the folder in which TFDS keeps its data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    assert not formats.is_path(name)


@pytest.mark.parametrize('suffix', COMPRESS)
def test_compressed_files_are_read(tmp_path, suffix):
    data = b''.join(b'Line %d.\n' % i for i in range(30_000))
    path = tmp_path / f'a.txt{suffix}'
    path.write_bytes(COMPRESS[suffix](data))
    with files.open_binary(str(path)) as (stream, raw):
        assert stream.readline() == b'Line 0.\n'
        assert 0 < raw.tell() <= path.stat().st_size
        assert len(stream.read()) == len(data) - 8


@pytest.mark.parametrize('suffix', COMPRESS)
@pytest.mark.parametrize('damage', ['cut', 'plain'])
def test_damaged_compressed_files_are_named(tmp_path, suffix, damage):
    packed = COMPRESS[suffix](b''.join(b'Line %d.\n' % i for i in range(30_000)))
    path = tmp_path / f'a.txt{suffix}'
    path.write_bytes(packed[:-200] if damage == 'cut' else b'plain text')
    with (
        pytest.raises(
            UserError, match=rf"a\.txt\{suffix}' is damaged or not a {files.COMPRESSIONS[suffix]} file"
        ),
        files.open_binary(str(path)) as (stream, _),
    ):
        stream.read()


def test_errors_of_the_disk_are_not_damage(tmp_path):
    (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(b'x'))
    with pytest.raises(IsADirectoryError), files.open_binary(str(tmp_path / 'a.txt.gz')):
        tmp_path.read_text()
