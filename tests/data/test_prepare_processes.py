"""Preparation in a separate process: killed midway and repeated, and its memory."""

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
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.rows import Rows
from tests.data.test_prepare import documents_in, make_sentences, read_rows
from tests.runs import ROOT

SCRIPT = """
import pathlib, sys
from bert_jax.data import prepare, tokenizer
from bert_jax.data.rows import SegmentRows

source, vocab, rows = sys.argv[1:]
text = prepare.TextConfig((source,), length=32, shard_chars=20_000, workers=2)
print(prepare.prepare(text, SegmentRows(32), tokenizer.load(vocab), pathlib.Path(rows))['counts']['train_rows'])
"""


def start_script(*arguments, script=SCRIPT, out=subprocess.PIPE):
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


def running_in_session(leader):
    """Return the ids of the processes of a session that still run."""
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
def killed_run(word_tokenizer, tmp_path_factory):
    """A preparation that was killed midway: its folder, its session and the arguments to start it again."""
    folder = tmp_path_factory.mktemp('killed')
    word_tokenizer.save(folder / 'tokenizer.json')
    (folder / 'a.txt').write_text('\n\n'.join('\n'.join(make_sentences(d, 60)) for d in range(70)) * 12)
    arguments = (folder / 'a.txt', folder / 'tokenizer.json', folder / 'rows')
    process = start_script(*arguments, out=subprocess.DEVNULL)  # orphaned workers would keep a pipe open
    try:
        has_started = wait_until(
            lambda: process.poll() is not None or len([*(folder / 'rows.partial').glob('*.array_record')]) > 3
        )
        assert has_started
        assert process.poll() is None, 'the process finished before it could be killed'
        process.kill()
        process.wait()
        yield folder, process.pid, arguments
    finally:
        process.kill()
        for pid in running_in_session(process.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='needs /proc')
def test_killed_run_leaves_no_workers_running(killed_run):
    _, leader, _ = killed_run
    assert wait_until(lambda: not running_in_session(leader), 15), (
        'workers outlive the process that started them'
    )


def test_killed_run_leaves_no_complete_rows_and_is_continued(killed_run, word_tokenizer):
    folder, _, arguments = killed_run
    complete = [*(folder / 'rows.partial').glob('*.result')]
    kept = [(folder / 'rows.partial' / json.loads(file.read_text())['file']).stat() for file in complete]
    assert kept
    assert not (folder / 'rows').exists()
    with pytest.raises(UserError, match='no prepared rows in .*Run python -m'):
        Rows(folder / 'rows', 'train')
    repeated = start_script(*arguments)
    printed, errors = repeated.communicate(timeout=180)
    assert repeated.returncode == 0, errors
    assert int(printed) == len(Rows(folder / 'rows', 'train')) > 1000
    assert not (folder / 'rows.partial').exists()
    assert not [*(folder / 'rows').glob('*.result')]
    assert {(s.st_ino, s.st_mtime_ns) for s in kept} < {
        (s.st_ino, s.st_mtime_ns) for s in map(pathlib.Path.stat, (folder / 'rows').iterdir())
    }
    assert documents_in(read_rows(folder / 'rows', 'train'), word_tokenizer) == set(range(70))


MEMORY_SCRIPT = """
import pathlib, resource, sys
from bert_jax.data import prepare, tokenizer
from bert_jax.data.rows import SegmentRows

def peak():  # of this process only: getrusage would include its parent before exec
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024

source, vocab, rows = sys.argv[1:]
text = prepare.TextConfig((source,), shard_chars=1_000_000, workers=2)
tokens = tokenizer.load(vocab)
before = peak()
prepare.prepare(text, SegmentRows(128), tokens, pathlib.Path(rows))
print(before, peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is reported in other units')
def test_memory_is_bounded(tmp_path):
    vocabulary = [f'word{i:086d}' for i in range(500)]  # long words, so that there are few tokens
    tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *vocabulary, '.']).save(tmp_path / 'tokenizer.json')
    rng = np.random.default_rng(0)
    blocks = ['\n'.join(' '.join(rng.choice(vocabulary, 8)) + '.' for _ in range(40)) for _ in range(20)]
    size = 0
    with (tmp_path / 'a.txt').open('w') as file:
        while size < 30_000_000:
            size += file.write(blocks[rng.integers(20)] + '\n\n')
    process = start_script(
        tmp_path / 'a.txt', tmp_path / 'tokenizer.json', tmp_path / 'rows', script=MEMORY_SCRIPT
    )
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    before, parent, worker = map(float, printed.split())
    assert parent + 2 * worker < 600  # MiB in all three processes
    assert parent - before < 25, 'the reading process holds the whole text in memory'
