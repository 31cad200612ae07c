"""Preparing rows: the same whatever the workers, finished or not there at all, in bounded memory."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import prepare as prepare_lib
from bert_jax.data import sources
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import MANIFEST, Rows, SegmentRows, unpack

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS, OWN_WORDS = 60, 40
MAKER = SegmentRows(32)


def sentences(document, n=12):
    """Sentences in words that no other document has."""
    rng = np.random.default_rng(document)
    own = [f'w{document * OWN_WORDS + i}' for i in range(OWN_WORDS)]
    return [' '.join(rng.choice(own, 6)) + '.' for _ in range(n)]


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp('text') / 'numbered.txt'
    file.write_text('\n\n'.join('\n'.join(sentences(d)) for d in range(DOCUMENTS)) + '\n')
    return TextConfig(sources=(str(file),), length=32, validation_fraction=0.1, shard_chars=6000, workers=1)


@pytest.fixture(scope='module')
def folders(text, words, tmp_path_factory):
    """Rows of the same text, made by 1, 2 and 3 workers."""
    found = {n: tmp_path_factory.mktemp('workers') / f'{n}' / 'rows' for n in (1, 2, 3)}
    for n, folder in found.items():
        prepare_lib.prepare(dataclasses.replace(text, workers=n), MAKER, words, folder)
    return found


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def unpacked(folder, split):
    rows = Rows(folder, split)
    return [unpack(rows[i]) for i in range(len(rows))]


def read_documents(found, words):
    """The documents of which some word is in the rows."""
    ids = {int(t) for r in found for t in r.tokens[: r.length]}
    tokens = [words.token(t) for t in ids]
    return {int(t[1:]) // OWN_WORDS for t in tokens if t.startswith('w')}


def test_workers_change_nothing(folders):
    one, two, three = (contents(folders[n]) for n in (1, 2, 3))
    assert len(one) > 5, 'too few shards to tell'
    assert one == two
    assert one == three


def test_the_folder_holds_what_the_manifest_says(folders, words):
    folder = folders[2]
    manifest = json.loads((folder / MANIFEST).read_text())
    files = [f for split in ('train', 'validation') for f in manifest['files'][split]]
    assert sorted([*files, MANIFEST, tokenizer_lib.FILE]) == sorted(p.name for p in folder.iterdir())
    assert tokenizer_lib.load(folder).fingerprint == words.fingerprint == manifest['made_from']['tokenizer']
    assert manifest['length'] == 32
    assert not folder.with_name('rows.partial').exists()


def test_counts_are_true(folders):
    counts = json.loads((folders[1] / MANIFEST).read_text())['counts']
    for split in ('train', 'validation'):
        found = unpacked(folders[1], split)
        assert counts[f'{split}_rows'] == len(found) == len(Rows(folders[1], split))
        assert counts[f'{split}_tokens'] == sum(r.length for r in found)
    assert counts['validation_documents'] == DOCUMENTS // 10
    assert counts['train_documents'] == DOCUMENTS - DOCUMENTS // 10


def test_held_out_documents_are_not_trained_on(folders, words):
    train, held = (read_documents(unpacked(folders[1], s), words) for s in ('train', 'validation'))
    assert held == {9, 19, 29, 39, 49, 59}
    assert train == set(range(DOCUMENTS)) - held


def test_rows_have_the_length_and_type_of_the_manifest(folders):
    rows = Rows(folders[1], 'train')
    assert rows[0].shape == (4 + 32,)
    assert rows[0].dtype == np.uint16
    assert rows.manifest['dtype'] == 'uint16'


def test_rows_can_be_listed(folders):
    rows = Rows(folders[1], 'validation')
    assert len(list(rows)) == len(rows)
    assert np.array_equal(list(rows), [rows[i] for i in range(len(rows))])


def test_a_second_call_reuses_the_rows(folders, text, words):
    before = {p: p.stat().st_mtime_ns for p in folders[1].iterdir()}
    manifest = prepare_lib.prepare(
        dataclasses.replace(text, workers=3, rows='elsewhere'), MAKER, words, folders[1]
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
def test_other_settings_are_named_and_nothing_is_touched(folders, text, words, change):
    before = contents(folders[1])
    (key,) = change
    with pytest.raises(UserError) as error:
        prepare_lib.prepare(dataclasses.replace(text, **change), MAKER, words, folders[1])
    message = str(error.value)
    assert f'prepared with another {key} (' in message
    new = change[key]
    assert f'now {list(new) if isinstance(new, tuple) else new})' in message
    assert 'choose another data.rows, or delete them' in message
    assert contents(folders[1]) == before


def test_text_that_changed_is_no_longer_that_of_the_rows(text, words, tmp_path):
    file, folder = tmp_path / 'a.txt', tmp_path / 'rows'
    file.write_text(pathlib.Path(text.sources[0]).read_text())
    text = dataclasses.replace(text, sources=(str(file),))
    manifest = prepare_lib.prepare(text, MAKER, words, folder)
    with file.open('a') as f:
        f.write('\n\nOne more.')
    with pytest.raises(UserError, match='text files have changed since'):
        prepare_lib.prepare(text, MAKER, words, folder)
    file.unlink()  # rows may travel without their text
    assert prepare_lib.prepare(text, MAKER, words, folder) == manifest


def test_another_objective_or_tokenizer_is_named(folders, text, words):
    with pytest.raises(UserError, match='prepared with another maker'):
        prepare_lib.prepare(text, SegmentRows(32, 'swap'), words, folders[1])
    other = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, 'w1'])
    with pytest.raises(UserError, match='prepared with another tokenizer'):
        prepare_lib.prepare(text, MAKER, other, folders[1])


def test_a_folder_with_other_things_in_it_is_refused_first(text, words, tmp_path, monkeypatch):
    (tmp_path / 'rows').mkdir()
    (tmp_path / 'rows' / 'notes.md').write_text('mine')
    monkeypatch.setattr(sources, 'documents', lambda *_: pytest.fail('work was begun'))
    with pytest.raises(UserError, match='rows'):
        prepare_lib.prepare(text, MAKER, words, tmp_path / 'rows')
    assert (tmp_path / 'rows' / 'notes.md').read_text() == 'mine'


@pytest.mark.parametrize('content', ['', ' \n\n \t \n'])
def test_empty_text_is_an_error_and_leaves_nothing(text, words, tmp_path, content):
    (tmp_path / 'empty.txt').write_text(content)
    with pytest.raises(
        UserError, match=r'No text to train on was found in .*empty\.txt: give files with text'
    ):
        prepare_lib.prepare(
            dataclasses.replace(text, sources=(str(tmp_path / 'empty.txt'),)), MAKER, words, tmp_path / 'rows'
        )
    assert [p.name for p in tmp_path.iterdir()] == ['empty.txt']


def test_holding_nothing_out(text, words, tmp_path):
    manifest = prepare_lib.prepare(
        dataclasses.replace(text, validation_fraction=0.0), MAKER, words, tmp_path / 'rows'
    )
    assert manifest['counts']['train_documents'] == DOCUMENTS
    assert manifest['files']['validation'] == []
    assert len(Rows(tmp_path / 'rows', 'validation')) == 0


def test_holding_everything_out_is_an_error(text, words, tmp_path):
    everything = dataclasses.replace(text, validation_fraction=1.0)
    with pytest.raises(UserError, match=r'hold out less \(data\.validation_fraction\)'):
        prepare_lib.prepare(everything, MAKER, words, tmp_path / 'rows')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('fraction', [-0.1, 1.5, 3.0])
def test_a_fraction_that_is_no_share_is_refused(fraction):
    with pytest.raises(UserError, match='validation_fraction'):
        TextConfig(validation_fraction=fraction)


def test_shards_keep_every_document_once_and_in_order(text):
    shards = list(prepare_lib.shards(text))
    assert [s.number for s in shards] == list(range(len(shards)))
    progress = [s.progress for s in shards]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    for split, numbers in (
        ('train', [d for d in range(60) if d % 10 != 9]),
        ('validation', [9, 19, 29, 39, 49, 59]),
    ):
        found = [d for s in shards if s.split == split for d in s.documents]
        assert found == [sentences(d) for d in numbers]
    full = [s for s in shards if s.split == 'train'][:-1]
    assert all(6000 <= sum(len(p) for d in s.documents for p in d) < 7000 for s in full)


def test_sources_follow_one_another(text, tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(f'{name}{i}' for i in range(3)))
    both = dataclasses.replace(
        text, sources=(str(tmp_path / 'b.txt'), str(tmp_path / 'a.txt')), validation_fraction=0.5
    )
    shards = list(prepare_lib.shards(both))
    assert [(s.split, s.documents) for s in shards] == [
        ('train', [['b0'], ['b2'], ['a1']]),
        ('validation', [['b1'], ['a0'], ['a2']]),
    ]


def test_corpora_with_names_do_not_share_rows(text, words, tmp_path):
    for name in 'abc':
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(' '.join(sentences(d)) for d in range(10)))
    files = [f'{name}={tmp_path / file}.txt' for name, file in (('x', 'a'), ('y', 'b'), ('x', 'c'))]
    config = dataclasses.replace(text, sources=tuple(files), validation_fraction=0.2)
    assert config.names == ('x', 'y')
    prepare_lib.prepare(config, MAKER, words, tmp_path / 'rows')
    for split in ('train', 'validation'):
        rows = Rows(tmp_path / 'rows', split)
        found = [unpack(rows[i]).source for i in range(len(rows))]
        assert found == [0] * rows.parts[0] + [1] * rows.parts[1]
        assert rows.parts[0] == pytest.approx(2 * rows.parts[1], abs=3)
        assert rows.parts[1] > 0


def test_each_corpus_needs_text_and_what_is_not_held_out_is_said(text, words, tmp_path, caplog):
    def prepare(name, content):
        (tmp_path / f'{name}.txt').write_text(content)
        both = (f'a={text.sources[0]}', f'b={tmp_path / name}.txt')
        prepare_lib.prepare(dataclasses.replace(text, sources=both), MAKER, words, tmp_path / name)

    with pytest.raises(UserError, match=r'No text .*empty\.txt'):
        prepare('empty', '\n')
    prepare('short', '\n'.join(sentences(0)))
    assert 'nothing is held out of b' in caplog.text
    assert 'nothing is held out of a' not in caplog.text


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'sources': ('en=a.txt', 'b.txt')}, 'write all as NAME=SOURCE'),
        ({'sources': ('a.txt', 'b.txt'), 'exponent': 0.7}, 'exponent=0.7 weighs corpora that have names'),
        ({'sources': ('en=a.txt', 'de=b.txt'), 'exponent': 2.0}, 'exponent'),
    ],
)
def test_names_and_weights_of_corpora_that_make_no_sense(settings, said):
    with pytest.raises(UserError, match=said):
        TextConfig(**settings)


def test_a_validation_split_is_held_out_and_nothing_else(sst2):
    config = TextConfig(
        (sst2,), 'validation[:40]', 'train[:15]', validation_fraction=0.5, text_key='sentence'
    )
    found = {s.split: s.documents for s in prepare_lib.shards(config)}
    held = [e['sentence'].strip() for e in sources.examples(sst2, 'train[:15]')]
    assert [d[0] for d in found['validation']] == held
    assert len(found['train']) == 40


def test_a_limit_takes_the_first_text_of_each_corpus_and_nothing_less_held_out(tmp_path, caplog):
    for name in 'xy':
        documents = [f'{name} {i:02}\n{name} is what there is to be said.' for i in range(100)]
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(documents))
    settings = dict(sources=(f'x={tmp_path}/x.txt', f'y={tmp_path}/y.txt'), validation_fraction=0.1)

    def documents(split, corpus, limit):
        found = prepare_lib.shards(TextConfig(**settings, limit=limit))
        return [d for s in found if (s.split, s.source) == (split, corpus) for d in s.documents]

    for corpus in range(2):
        assert documents('validation', corpus, 95) == documents('validation', corpus, 0)
        whole, cut = documents('train', corpus, 0), documents('train', corpus, 95)
        assert cut == [
            *whole[:2],
            whole[2][:1],
        ]  # 2 * 36 characters and 4; later headings would have had room
        assert not caplog.records
    assert documents('train', 0, 10**6) == documents('train', 0, 0)
    assert 'fewer than data.limit=1000000' in caplog.text
    with pytest.raises(UserError, match='data.limit'):
        TextConfig(**settings, limit=-1)


def test_ids_over_16_bits_are_kept(tmp_path):
    large = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(70_000))])
    (tmp_path / 'a.txt').write_text('w1 w69999 w2 w69998')
    config = TextConfig((str(tmp_path / 'a.txt'),), validation_fraction=0, length=8, workers=1)
    manifest = prepare_lib.prepare(config, SegmentRows(8, 'none'), large, tmp_path / 'rows')
    assert manifest['dtype'] == 'uint32'
    (row,) = unpacked(tmp_path / 'rows', 'train')
    assert row.tokens[: row.length].tolist() == [2, 6, 70_004, 7, 70_003, 3]


def test_an_error_in_the_text_ends_in_its_message(words, tmp_path):
    lines = [json.dumps({'text': ' '.join(sentences(d))}) for d in range(20)]
    (tmp_path / 'a.jsonl').write_text('\n'.join([*lines, '{"text": ', *lines]))
    config = TextConfig((str(tmp_path / 'a.jsonl'),), length=32, shard_chars=500, workers=1)
    with pytest.raises(UserError, match=r'a\.jsonl, line 21 is not JSON'):
        prepare_lib.prepare(config, MAKER, words, tmp_path / 'rows')
    assert not (tmp_path / 'rows').exists()


@dataclasses.dataclass(frozen=True)
class Dying:
    """A row maker whose process ends, as one does that is out of memory."""

    whole = False
    length: int = 32

    def __call__(self, documents, tokenizer, rng):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_an_error_that_says_so(text, words, tmp_path):
    with pytest.raises(UserError, match=r'(?i)worker|process'):
        prepare_lib.prepare(text, Dying(), words, tmp_path / 'rows')
    assert not (tmp_path / 'rows').exists()


SCRIPT = """
import pathlib, sys
from bert_jax.data import prepare, tokenizer
from bert_jax.data.rows import SegmentRows

source, vocab, rows = sys.argv[1:]
text = prepare.TextConfig((source,), length=32, shard_chars=20_000, workers=2)
print(prepare.prepare(text, SegmentRows(32), tokenizer.load(vocab), pathlib.Path(rows))['counts']['train_rows'])
"""


def start(*arguments, script=SCRIPT, out=subprocess.PIPE):
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(
        [sys.executable, '-c', script, *map(str, arguments)],
        env=env,
        stdout=out,
        stderr=out,
        start_new_session=True,
        text=True,
    )


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def in_session(leader):
    """Processes of a session that still run."""
    found = []
    for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, _, session = stat.read_text().rpartition(')')[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != 'Z':
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope='module')
def killed(words, tmp_path_factory):
    """A run that was killed in the middle: its folder, its session, and the arguments of a new run."""
    folder = tmp_path_factory.mktemp('killed')
    words.save(folder / 'tokenizer.json')
    (folder / 'a.txt').write_text('\n\n'.join('\n'.join(sentences(d, 60)) for d in range(70)) * 12)
    arguments = (folder / 'a.txt', folder / 'tokenizer.json', folder / 'rows')
    process = start(*arguments, out=subprocess.DEVNULL)  # a pipe would stay open in workers left behind
    try:
        begun = wait_until(
            lambda: process.poll() is not None or len([*(folder / 'rows.partial').glob('*.array_record')]) > 3
        )
        assert begun
        assert process.poll() is None, 'it ended before it could be killed'
        process.kill()
        process.wait()
        yield folder, process.pid, arguments
    finally:
        process.kill()
        for pid in in_session(process.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='looks for processes in /proc')
def test_a_killed_run_leaves_no_workers_behind(killed):
    _, leader, _ = killed
    assert wait_until(lambda: not in_session(leader), 15), 'workers outlive the run that started them'


def test_a_killed_run_leaves_nothing_that_looks_finished(killed, words):
    folder, _, arguments = killed
    assert not (folder / 'rows').exists()
    with pytest.raises(UserError, match='There are no prepared rows in .*run python -m'):
        Rows(folder / 'rows', 'train')
    again = start(*arguments)
    printed, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert int(printed) == len(Rows(folder / 'rows', 'train')) > 1000
    assert not (folder / 'rows.partial').exists()
    assert read_documents(unpacked(folder / 'rows', 'train'), words) == set(range(70))


MEMORY_SCRIPT = """
import pathlib, resource, sys
from bert_jax.data import prepare, tokenizer
from bert_jax.data.rows import SegmentRows

def peak():  # of this process alone: getrusage would count the one that started it, before exec
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024

source, vocab, rows = sys.argv[1:]
text = prepare.TextConfig((source,), shard_chars=1_000_000, workers=2)
tokens = tokenizer.load(vocab)
before = peak()
prepare.prepare(text, SegmentRows(128), tokens, pathlib.Path(rows))
print(before, peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is counted in other units')
def test_memory_stays_bounded(tmp_path):
    own = [f'word{i:086d}' for i in range(500)]  # long, so that much text is few tokens
    tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *own, '.']).save(tmp_path / 'tokenizer.json')
    rng = np.random.default_rng(0)
    blocks = ['\n'.join(' '.join(rng.choice(own, 8)) + '.' for _ in range(40)) for _ in range(20)]
    size = 0
    with (tmp_path / 'a.txt').open('w') as file:
        while size < 30_000_000:
            size += file.write(blocks[rng.integers(20)] + '\n\n')
    process = start(tmp_path / 'a.txt', tmp_path / 'tokenizer.json', tmp_path / 'rows', script=MEMORY_SCRIPT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    before, parent, worker = map(float, printed.split())
    assert parent + 2 * worker < 600  # MiB, all three processes
    assert parent - before < 25, 'the process that reads holds the whole text'


def test_rows_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r'There are no prepared rows in .*rows.*: run python -m bert_jax\.bin\.prepare'
    ):
        Rows(tmp_path / 'rows', 'train')


@pytest.fixture
def copy(folders, tmp_path):
    folder = tmp_path / 'rows'
    folder.mkdir()
    for name, data in contents(folders[1]).items():
        (folder / name).write_bytes(data)
    return folder


def test_a_missing_file_of_rows_is_named(copy):
    file = next(copy.glob('train-*'))
    file.unlink()
    with pytest.raises(
        UserError, match=rf"{file.name}' is missing from the prepared rows: delete .* and prepare again"
    ):
        Rows(copy, 'train')


@pytest.mark.parametrize('damage', ['cut', 'overwritten', 'empty'])
def test_damaged_rows_are_an_error(copy, damage):
    file = sorted(copy.glob('train-*'))[0]
    data = file.read_bytes()
    half = len(data) // 2
    file.write_bytes({'cut': data[:half], 'overwritten': bytes(len(data)), 'empty': b''}[damage])
    with pytest.raises(UserError, match='prepare them again|prepare again'):
        for i in range(len(rows := Rows(copy, 'train'))):
            rows[i]


def test_a_damaged_manifest_is_an_error(copy):
    (copy / MANIFEST).write_text('{"length": ')
    with pytest.raises(UserError, match=r'(?i)manifest|damaged'):
        Rows(copy, 'train')
