"""Folders of vectors: bad lines, resumption, and search, by function and by command."""

import json
import random

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import vector_files
from bert_jax.evals.embedder import Embedder
from tests.conftest import sentences
from tests.runs import run_in_process


@pytest.fixture(scope='module')
def embedder(pretrained):
    return Embedder(pretrained)


@pytest.fixture
def source(tmp_path):
    texts = sentences(random.Random(2), 9)
    lines = [json.dumps({'text': text, 'name': f't{i}'}) for i, text in enumerate(texts)]
    lines[3:3] = ['{"text": 5}', 'no JSON', '{"other": "x"}']
    (tmp_path / 'texts.jsonl').write_text('\n'.join(lines) + '\n')
    return str(tmp_path / 'texts.jsonl'), texts


def test_bad_lines_are_named_and_skipped(source, caplog):
    path, texts = source
    found = vector_files.read_texts(path, '', 'text', 'name')
    assert [x['text'] for x in found] == texts
    assert [x['id'] for x in found] == [f't{i}' for i in range(9)]
    assert (
        sum('skipped' in r.message and f'line {n}' in r.message for r in caplog.records for n in (4, 5, 6))
        == 3
    )
    with pytest.raises(UserError, match='has no text in the field'):
        vector_files.read_texts(path, '', 'nothing')


def test_interrupted_embedding_is_resumed(source, embedder, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, '_CHUNK', 4)
    texts = vector_files.read_texts(source[0], '', 'text')
    about = {'checkpoint': 'x'}
    calls = []

    class Interrupted:
        width, has_token_vectors = embedder.width, False

        def encode(self, part, prompt):
            calls.append(len(part))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return embedder.encode(part, prompt)

    with pytest.raises(KeyboardInterrupt):
        vector_files.embed(Interrupted(), texts, tmp_path / 'out', about)
    with pytest.raises(UserError, match='has 4 of 9 vectors'):
        vector_files.Index(tmp_path / 'out', embedder)
    assert vector_files.embed(embedder, texts, tmp_path / 'out', about) == 5
    vectors = np.load(tmp_path / 'out' / 'vectors.npy')
    np.testing.assert_allclose(vectors, embedder.encode([x['text'] for x in texts]), atol=1e-5)
    assert vector_files.embed(embedder, texts, tmp_path / 'out', about) == 0
    for changed in ((texts[:5], about, ''), (texts, {'checkpoint': 'y'}, ''), (texts, about, 'passage: ')):
        with pytest.raises(UserError, match='vectors of other texts or of another model'):
            vector_files.embed(embedder, changed[0], tmp_path / 'out', *changed[1:])


@pytest.mark.parametrize('size', [0, 50, -8])
def test_damaged_vectors_are_never_filled_with_zeros(embedder, tmp_path, size):
    texts = [{'id': i, 'text': f'text {i}'} for i in range(4)]
    vector_files.embed(embedder, texts, tmp_path, {})
    content = (tmp_path / 'vectors.npy').read_bytes()
    (tmp_path / 'vectors.npy').write_bytes(content[:size])
    for use in (
        lambda: vector_files.embed(embedder, texts, tmp_path, {}),
        lambda: vector_files.Index(tmp_path, embedder),
    ):
        with pytest.raises(UserError, match=r'are damaged .* Delete the folder'):
            use()
    np.save(tmp_path / 'vectors.npy', np.zeros((3, embedder.width), np.float32))
    with pytest.raises(UserError, match=r'\(3, .* vectors for 4 texts'):
        vector_files.embed(embedder, texts, tmp_path, {})


def test_vectors_of_another_model_are_not_searched(embedder, tmp_path):
    vector_files.embed(embedder, [{'id': 0, 'text': 'a'}], tmp_path, {'checkpoint': 'x'})
    vector_files.Index(tmp_path, embedder, 'x')
    with pytest.raises(UserError, match='has vectors of another model or step'):
        vector_files.Index(tmp_path, embedder, 'y')


def test_texts_and_ids_that_are_missing_are_named(tmp_path, caplog):
    (path := tmp_path / 'x.jsonl').write_text('{"text": "a", "name": 1}\n{"text": " "}\n')
    assert vector_files.read_texts(str(path), 'test', 'text') == [{'id': 0, 'text': 'a'}]
    assert "line 2, has no text in the field 'text'" in caplog.text
    path.write_text('{"text": "a", "name": 1}\n{"text": "b", "name": 1}\n{"text": "c", "name": 2}\n')
    assert [x['text'] for x in vector_files.read_texts(str(path), 'test', 'text', 'name')] == ['a', 'c']
    assert 'line 2, repeats the name 1' in caplog.text
    with pytest.raises(UserError, match="and an id in the field 'nope'. Set --text and --id"):
        vector_files.read_texts(str(path), 'test', 'text', 'nope')
    with pytest.raises(UserError, match='Set --input to an existing file'):
        vector_files.read_texts(str(tmp_path / 'y.jsonl'), 'test', 'text')


def test_commands_find_each_text_by_itself(source, pretrained, tmp_path):
    path, texts = source
    words = (f'--checkpoint={pretrained}', f'--input={path}', '--id=name', f'--output={tmp_path}/out')
    done = run_in_process('bert_jax.bin.embed', *words)
    assert done.returncode == 0, done.stderr
    assert '9 vectors of width 32, 9 of them new' in done.stdout
    done = run_in_process(
        'bert_jax.bin.search',
        f'--checkpoint={pretrained}',
        f'--vectors={tmp_path}/out',
        '--top=2',
        texts[4],
        texts[7],
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0] == texts[4]
    assert lines[1].split()[:2] == ['1.000', 't4']
    assert lines[4].split()[:2] == ['1.000', 't7']
    missing = run_in_process(
        'bert_jax.bin.search', f'--checkpoint={pretrained}', f'--vectors={tmp_path}', 'x'
    )
    assert 'has no vectors' in missing.stderr


def test_texts_with_unusual_line_separators_are_found(embedder, tmp_path):
    texts = [{'id': i, 'text': text} for i, text in enumerate(('a \u2028 b', 'c \x85 d', 'e'))]
    vector_files.embed(embedder, texts, tmp_path, {})
    found = vector_files.Index(tmp_path, embedder).search('e', 3)
    assert {x.text for x in found} == {text['text'] for text in texts}


def test_a_vector_that_is_not_finite_is_an_error(embedder, tmp_path):
    vector_files.embed(embedder, [{'id': i, 'text': text} for i, text in enumerate('abc')], tmp_path, {})
    np.load(tmp_path / 'vectors.npy', 'r+')[1] = np.nan
    with pytest.raises(UserError, match=r'damaged \(a vector in vectors.npy is not finite\)'):
        vector_files.Index(tmp_path, embedder).search('b', 1)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        (vector_files.ABOUT, b'[1]'),
        (vector_files.ABOUT, b'{}'),
        (vector_files.TEXTS, b'{"id": 0'),
        (vector_files.TEXTS, b'{"id": 0}'),
        (vector_files.VECTORS, b''),
        (vector_files.VECTORS, b'\x93NUMPY'),
    ],
)
def test_damaged_vectors_are_an_error(embedder, tmp_path, name, content):
    vector_files.embed(embedder, [{'id': 0, 'text': 'a'}], tmp_path, {})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r'vectors in .* are damaged .* run bert_jax.bin.embed again'):
        vector_files.Index(tmp_path, embedder)
