"""Prepared rows do not depend on the number of workers, are complete or absent, and need bounded memory."""

import dataclasses
import gzip
import json
import os
import pathlib
import signal

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import prepare as prepare_lib
from bert_jax.data import sources, tfds_data
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import JoinedRows
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import MANIFEST, Rows, SegmentRows, unpack
from bert_jax.data.segmentation import Segmenter

DOCUMENTS, WORDS_PER_DOCUMENT = 60, 40
HELD_OUT = (1, 9, 19, 28, 38, 48, 58)  # a tenth of the characters, from the second document on
ROW_MAKER = SegmentRows(32, short_sequence_rate=0)


def make_sentences(document, n=12):
    """Make sentences of words that occur in no other document."""
    rng = np.random.default_rng(document)
    vocabulary = [f'w{document * WORDS_PER_DOCUMENT + i}' for i in range(WORDS_PER_DOCUMENT)]
    return [' '.join(rng.choice(vocabulary, 6)) + '.' for _ in range(n)]


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp('text') / 'numbered.txt'
    file.write_text('\n\n'.join('\n'.join(make_sentences(d)) for d in range(DOCUMENTS)) + '\n')
    return TextConfig(sources=(str(file),), length=32, validation_fraction=0.1, shard_chars=6000, workers=1)


@pytest.fixture(scope='module')
def folders(text, word_tokenizer, tmp_path_factory):
    """Rows of the same text, prepared by 1, 2 and 3 workers."""
    found = {n: tmp_path_factory.mktemp('workers') / f'{n}' / 'rows' for n in (1, 2, 3)}
    for n, folder in found.items():
        prepare_lib.prepare(dataclasses.replace(text, workers=n), ROW_MAKER, word_tokenizer, folder)
    return found


def file_contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def read_rows(folder, split):
    rows = Rows(folder, split)
    return [unpack(rows[i]) for i in range(len(rows))]


def documents_in(found, word_tokenizer):
    """Return the documents of which the rows contain some word."""
    ids = {int(t) for r in found for t in r.tokens[: r.length]}
    tokens = [word_tokenizer.token(t) for t in ids]
    return {int(t[1:]) // WORDS_PER_DOCUMENT for t in tokens if t.startswith('w')}


def test_rows_do_not_depend_on_the_number_of_workers(folders):
    one, two, three = (file_contents(folders[n]) for n in (1, 2, 3))
    assert len(one) > 5, 'too few shards to test this'
    assert one == two
    assert one == three


def test_folder_contains_the_files_in_the_manifest(folders, word_tokenizer):
    folder = folders[2]
    manifest = json.loads((folder / MANIFEST).read_text())
    files = [f for split in ('train', 'validation') for f in manifest['files'][split]]
    assert sorted([*files, MANIFEST, tokenizer_lib.FILE]) == sorted(p.name for p in folder.iterdir())
    assert (
        tokenizer_lib.load(folder).fingerprint
        == word_tokenizer.fingerprint
        == manifest['settings']['tokenizer']
    )
    assert manifest['length'] == 32
    assert not folder.with_name('rows.partial').exists()


def test_counts_match_the_rows(folders):
    counts = json.loads((folders[1] / MANIFEST).read_text())['counts']
    for split in ('train', 'validation'):
        found = read_rows(folders[1], split)
        assert counts[f'{split}_rows'] == len(found) == len(Rows(folders[1], split))
        assert counts[f'{split}_tokens'] == sum(r.length for r in found)
    assert counts['validation_documents'] == len(HELD_OUT)
    assert counts['train_documents'] == DOCUMENTS - len(HELD_OUT)


def test_held_out_documents_are_not_trained_on(folders, word_tokenizer):
    train, held_out = (
        documents_in(read_rows(folders[1], s), word_tokenizer) for s in ('train', 'validation')
    )
    assert held_out == {*HELD_OUT}
    assert train == set(range(DOCUMENTS)) - held_out


def test_rows_have_the_length_and_dtype_of_the_manifest(folders):
    rows = Rows(folders[1], 'train')
    assert rows[0].shape == (4 + 32,)
    assert rows[0].dtype == np.uint16
    assert rows.manifest['dtype'] == 'uint16'


def test_rows_are_iterable(folders):
    rows = Rows(folders[1], 'validation')
    assert len(list(rows)) == len(rows)
    assert np.array_equal(list(rows), [rows[i] for i in range(len(rows))])


def test_second_call_reuses_the_rows(folders, text, word_tokenizer):
    before = {p: p.stat().st_mtime_ns for p in folders[1].iterdir()}
    manifest = prepare_lib.prepare(
        dataclasses.replace(text, workers=3, rows_dir='elsewhere'), ROW_MAKER, word_tokenizer, folders[1]
    )
    assert {p: p.stat().st_mtime_ns for p in folders[1].iterdir()} == before
    assert manifest == json.loads((folders[1] / MANIFEST).read_text())


@pytest.mark.parametrize(
    'change',
    [
        dict(length=64),
        dict(seed=1),
        dict(sources=('b.txt',)),
        dict(split='test'),
        dict(text_key='body'),
        dict(shard_chars=7000),
    ]
    + [dict(validation_fraction=0.2), dict(validation_split='test')],
)
def test_changed_settings_are_named_and_the_rows_are_kept(folders, text, word_tokenizer, change):
    before = file_contents(folders[1])
    (key,) = change
    with pytest.raises(UserError) as error:
        prepare_lib.prepare(dataclasses.replace(text, **change), ROW_MAKER, word_tokenizer, folders[1])
    message = str(error.value)
    assert f'prepared with a different {key} (' in message
    new = change[key]
    assert f'now {list(new) if isinstance(new, tuple) else new})' in message
    assert 'Delete the rows or choose another data.rows_dir' in message
    assert file_contents(folders[1]) == before


def test_changed_text_files_are_an_error(text, word_tokenizer, tmp_path):
    file, folder = tmp_path / 'a.txt', tmp_path / 'rows'
    file.write_text(pathlib.Path(text.sources[0]).read_text())
    text = dataclasses.replace(text, sources=(str(file),))
    manifest = prepare_lib.prepare(text, ROW_MAKER, word_tokenizer, folder)
    with file.open('a') as f:
        f.write('\n\nOne more.')
    with pytest.raises(UserError, match='text files have changed since'):
        prepare_lib.prepare(text, ROW_MAKER, word_tokenizer, folder)
    file.unlink()  # rows may be copied without their text
    assert prepare_lib.prepare(text, ROW_MAKER, word_tokenizer, folder) == manifest


def test_changed_row_maker_or_tokenizer_is_named(folders, text, word_tokenizer):
    for row_maker, change in (
        (SegmentRows(32, 'swap'), r'sentence_objective \(random, now swap\)'),
        (
            dataclasses.replace(ROW_MAKER, segmenter=Segmenter('w.txt', 'a1')),
            r'segmenter \(None, now w\.txt a1\)',
        ),
        (JoinedRows(32), r'row_maker \(SegmentRows, now JoinedRows\)'),
    ):
        with pytest.raises(UserError, match=f'prepared with a different {change}'):
            prepare_lib.prepare(text, row_maker, word_tokenizer, folders[1])
    other = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, 'w1'])
    with pytest.raises(UserError, match='prepared with a different tokenizer'):
        prepare_lib.prepare(text, ROW_MAKER, other, folders[1])


def test_folder_with_other_files_is_rejected_before_any_work(text, word_tokenizer, tmp_path, monkeypatch):
    (tmp_path / 'rows').mkdir()
    (tmp_path / 'rows' / 'notes.md').write_text('mine')
    monkeypatch.setattr(sources, 'read_documents', lambda *_: pytest.fail('text was read'))
    with pytest.raises(UserError, match='contains files other than prepared rows'):
        prepare_lib.prepare(text, ROW_MAKER, word_tokenizer, tmp_path / 'rows')
    assert (tmp_path / 'rows' / 'notes.md').read_text() == 'mine'


@pytest.mark.parametrize('content', ['', ' \n\n \t \n'])
def test_empty_text_is_an_error_and_leaves_no_files(text, word_tokenizer, tmp_path, content):
    (tmp_path / 'empty.txt').write_text(content)
    with pytest.raises(UserError, match=r'no text to train on in .*empty\.txt. Choose sources with text'):
        prepare_lib.prepare(
            dataclasses.replace(text, sources=(str(tmp_path / 'empty.txt'),)),
            ROW_MAKER,
            word_tokenizer,
            tmp_path / 'rows',
        )
    assert [p.name for p in tmp_path.iterdir()] == ['empty.txt']


def test_hold_out_nothing(text, word_tokenizer, tmp_path):
    manifest = prepare_lib.prepare(
        dataclasses.replace(text, validation_fraction=0.0), ROW_MAKER, word_tokenizer, tmp_path / 'rows'
    )
    assert manifest['counts']['train_documents'] == DOCUMENTS
    assert manifest['files']['validation'] == []
    assert len(Rows(tmp_path / 'rows', 'validation')) == 0


def test_hold_out_everything_is_an_error(text, word_tokenizer, tmp_path):
    everything = dataclasses.replace(text, validation_fraction=1.0)
    with pytest.raises(UserError, match=r'lower data\.validation_fraction'):
        prepare_lib.prepare(everything, ROW_MAKER, word_tokenizer, tmp_path / 'rows')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('fraction', [-0.1, 1.5, 3.0])
def test_validation_fraction_outside_0_to_1_is_rejected(fraction):
    with pytest.raises(UserError, match='validation_fraction'):
        TextConfig(validation_fraction=fraction)


def test_shards_contain_every_document_once_in_order(text):
    shards = list(prepare_lib.make_shards(text))
    assert [s.number for s in shards] == list(range(len(shards)))
    progress = [s.progress for s in shards]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    for split, numbers in (
        ('train', [d for d in range(60) if d not in HELD_OUT]),
        ('validation', HELD_OUT),
    ):
        found = [d for s in shards if s.split == split for d in s.documents]
        assert found == [make_sentences(d) for d in numbers]
    full = [s for s in shards if s.split == 'train'][:-1]
    assert all(6000 <= sum(len(p) for d in s.documents for p in d) < 7000 for s in full)


@pytest.mark.parametrize('suffix', ['txt', 'txt.gz', 'jsonl'])
def test_long_documents_are_held_out_whole(tmp_path, suffix):
    line = 'x' * 999
    documents = [[f'{d}{line}'] * 200 for d in range(12)]  # three parts each
    if suffix == 'jsonl':
        content = ''.join(json.dumps({'text': '\n'.join(d)}) + '\n' for d in documents).encode()
    else:
        content = '\n\n'.join('\n'.join(d) for d in documents).encode()
    file = tmp_path / f'long.{suffix}'
    file.write_bytes(gzip.compress(content) if suffix.endswith('gz') else content)
    assert 3 * sources.MAX_DOCUMENT_CHARS < 200 * 999
    text = TextConfig(sources=(str(file),), validation_fraction=0.02)
    assert [*prepare_lib.read_documents(text, 'validation')] == [documents[1]]
    assert [*prepare_lib.read_documents(text, 'train')] == documents[:1] + documents[2:]
    text = dataclasses.replace(text, validation_fraction=0.4, shard_chars=100_000)
    first_letters = [
        {p.split('x')[0] for d in prepare_lib.read_documents(text, split) for p in d}
        for split in ('train', 'validation')
    ]
    assert first_letters[0].isdisjoint(first_letters[1])
    assert len(first_letters[1]) == 5


def test_end_of_the_only_document_is_held_out(tmp_path, caplog):
    lines = [f'{i:03} {"x" * 996}' for i in range(300)]
    (tmp_path / 'one.txt').write_text('\n'.join(lines))
    text = TextConfig(sources=(str(tmp_path / 'one.txt'),), validation_fraction=0.05)
    with caplog.at_level('INFO'):
        assert [*prepare_lib.read_documents(text, 'validation')] == [lines[285:]]
    assert 'one.txt is one document, so its last 15000 characters are held out' in caplog.text
    assert [*prepare_lib.read_documents(text, 'train')] == [lines[:285]]


def test_sources_are_read_one_after_another(text, tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(f'{name}{i}' for i in range(3)))
    both = dataclasses.replace(
        text, sources=(str(tmp_path / 'b.txt'), str(tmp_path / 'a.txt')), validation_fraction=0.5
    )
    shards = list(prepare_lib.make_shards(both))
    assert [(s.split, s.documents) for s in shards] == [
        ('train', [['b0'], ['b2'], ['a1']]),
        ('validation', [['b1'], ['a0'], ['a2']]),
    ]


def test_named_corpora_do_not_share_rows(text, word_tokenizer, tmp_path):
    for name in 'abc':
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(' '.join(make_sentences(d)) for d in range(10)))
    files = [f'{name}={tmp_path / file}.txt' for name, file in (('x', 'a'), ('y', 'b'), ('x', 'c'))]
    config = dataclasses.replace(text, sources=tuple(files), validation_fraction=0.2)
    assert config.corpus_names == ('x', 'y')
    row_maker = SegmentRows(32, 'none', short_sequence_rate=0)
    prepare_lib.prepare(config, row_maker, word_tokenizer, tmp_path / 'rows')
    for split in ('train', 'validation'):
        rows = Rows(tmp_path / 'rows', split)
        found = [unpack(rows[i]).corpus for i in range(len(rows))]
        assert found == [0] * rows.corpus_sizes[0] + [1] * rows.corpus_sizes[1]
        assert rows.corpus_sizes[0] == pytest.approx(2 * rows.corpus_sizes[1], abs=3)
        assert rows.corpus_sizes[1] > 0


def test_each_corpus_needs_text_and_a_missing_validation_set_is_logged(
    text, word_tokenizer, tmp_path, caplog
):
    def prepare(name, content):
        (tmp_path / f'{name}.txt').write_text(content)
        both = (f'a={text.sources[0]}', f'b={tmp_path / name}.txt')
        prepare_lib.prepare(
            dataclasses.replace(text, sources=both), ROW_MAKER, word_tokenizer, tmp_path / name
        )

    with pytest.raises(UserError, match=r'no text .*empty\.txt'):
        prepare('empty', '\n')
    prepare('short', make_sentences(0)[0])
    assert 'no text of b is held out' in caplog.text
    assert 'no text of a is held out' not in caplog.text


@pytest.mark.parametrize(
    ('validation_fraction', 'objective', 'has_warning'),
    [(0.01, 'random', True), (0.2, 'random', False), (0.01, 'swap', False), (0.0, 'random', False)],
)
def test_split_without_random_segments_is_reported(
    text, word_tokenizer, tmp_path, caplog, validation_fraction, objective, has_warning
):
    text = dataclasses.replace(text, validation_fraction=validation_fraction, shard_chars=100_000)
    prepare_lib.prepare(text, SegmentRows(32, objective), word_tokenizer, tmp_path / 'rows')
    warning = 'no validation row has a random second segment'
    assert (warning in caplog.text) == has_warning
    assert (
        'raise data.validation_fraction, or set task.sentence_objective=swap' in caplog.text
    ) == has_warning
    assert 'no train row' not in caplog.text


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'sources': ('en=a.txt', 'b.txt')}, 'Write all of them as NAME=SOURCE'),
        (
            {'sources': ('a.txt', 'b.txt'), 'sampling_exponent': 0.7},
            'sampling_exponent=0.7 needs named corpora',
        ),
        ({'sources': ('en=a.txt', 'de=b.txt'), 'sampling_exponent': 2.0}, 'sampling_exponent'),
    ],
)
def test_invalid_corpus_names_and_weights_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        TextConfig(**settings)


def test_only_the_validation_split_is_held_out(sst2):
    config = TextConfig(
        (sst2,), 'validation[:40]', 'train[:15]', validation_fraction=0.5, text_key='sentence'
    )
    found = {s.split: s.documents for s in prepare_lib.make_shards(config)}
    expected = [e['sentence'].strip() for e in tfds_data.load_examples(sst2, 'train[:15]')]
    assert [d[0] for d in found['validation']] == expected
    assert len(found['train']) == 40


def test_max_train_chars_limits_each_corpus_but_not_validation(tmp_path, caplog):
    for name in 'xy':
        documents = [f'{name} {i:02}\n{name} is the next line of the text.' for i in range(100)]
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(documents))
    settings = dict(sources=(f'x={tmp_path}/x.txt', f'y={tmp_path}/y.txt'), validation_fraction=0.1)

    def documents(split, corpus, max_chars):
        found = prepare_lib.make_shards(TextConfig(**settings, max_train_chars=max_chars))
        return [d for s in found if (s.split, s.corpus) == (split, corpus) for d in s.documents]

    for corpus in range(2):
        assert documents('validation', corpus, 95) == documents('validation', corpus, 0)
        whole, cut = documents('train', corpus, 0), documents('train', corpus, 95)
        # 2 * 36 characters and 4; headings of later documents would fit, but are not used.
        assert cut == [*whole[:2], whole[2][:1]]
        assert not caplog.records
    assert documents('train', 0, 10**6) == documents('train', 0, 0)
    assert 'fewer than data.max_train_chars=1000000' in caplog.text
    with pytest.raises(UserError, match='data.max_train_chars'):
        TextConfig(**settings, max_train_chars=-1)


def test_ids_over_16_bits_are_stored(tmp_path):
    large = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(70_000))])
    (tmp_path / 'a.txt').write_text('w1 w69999 w2 w69998')
    config = TextConfig((str(tmp_path / 'a.txt'),), validation_fraction=0, length=8, workers=1)
    manifest = prepare_lib.prepare(config, SegmentRows(8, 'none'), large, tmp_path / 'rows')
    assert manifest['dtype'] == 'uint32'
    (row,) = read_rows(tmp_path / 'rows', 'train')
    assert row.tokens[: row.length].tolist() == [2, 6, 70_004, 7, 70_003, 3]


def test_error_in_the_text_is_reported(word_tokenizer, tmp_path):
    lines = [json.dumps({'text': ' '.join(make_sentences(d))}) for d in range(20)]
    (tmp_path / 'a.jsonl').write_text('\n'.join([*lines, '{"text": ', *lines]))
    config = TextConfig((str(tmp_path / 'a.jsonl'),), length=32, shard_chars=500, workers=1)
    with pytest.raises(UserError, match=r'a\.jsonl, line 21 is not JSON'):
        prepare_lib.prepare(config, ROW_MAKER, word_tokenizer, tmp_path / 'rows')
    assert not (tmp_path / 'rows').exists()


@dataclasses.dataclass(frozen=True)
class KilledRowMaker:
    """A row maker that kills its process, as the out-of-memory killer does."""

    whole_documents = False
    length: int = 32

    def __call__(self, documents, tokenizer, rng):
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_is_an_error(text, word_tokenizer, tmp_path):
    with pytest.raises(UserError, match='A worker process was killed'):
        prepare_lib.prepare(
            dataclasses.replace(text, workers=2), KilledRowMaker(), word_tokenizer, tmp_path / 'rows'
        )
    assert not (tmp_path / 'rows').exists()


def test_missing_rows_are_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r'no prepared rows in .*rows.*\. Run python -m bert_jax\.bin\.prepare'
    ):
        Rows(tmp_path / 'rows', 'train')


@pytest.fixture
def rows_copy(folders, tmp_path):
    folder = tmp_path / 'rows'
    folder.mkdir()
    for name, data in file_contents(folders[1]).items():
        (folder / name).write_bytes(data)
    return folder


def test_missing_row_file_is_named(rows_copy):
    file = next(rows_copy.glob('train-*'))
    file.unlink()
    with pytest.raises(
        UserError,
        match=rf"{file.name}' of the prepared rows is missing\. Delete .* and prepare the rows again",
    ):
        Rows(rows_copy, 'train')


@pytest.mark.parametrize('damage', ['cut', 'overwritten', 'empty'])
def test_damaged_rows_are_an_error(rows_copy, damage):
    file = sorted(rows_copy.glob('train-*'))[0]
    data = file.read_bytes()
    half = len(data) // 2
    file.write_bytes({'cut': data[:half], 'overwritten': bytes(len(data)), 'empty': b''}[damage])
    with pytest.raises(UserError, match='Delete .* and prepare (them|the rows) again'):
        for i in range(len(rows := Rows(rows_copy, 'train'))):
            rows[i]


@pytest.mark.parametrize('content', ['{"length": ', '{"length": 32}'], ids=['cut', 'of an earlier version'])
def test_damaged_manifest_is_an_error(rows_copy, content):
    (rows_copy / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r'manifest\.json. is damaged'):
        Rows(rows_copy, 'train')
