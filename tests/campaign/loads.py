"""Part `loads`: much more text, steps, runs, classes and words than in the other parts.

The sizes in this module are multiplied by `SCALE`. At 1, a case takes minutes to an hour and up to 12 GB of disk.
"""

import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bert_jax.data.rows import read_manifest
from bert_jax.experiments import runs
from tests.conftest import sentences
from tests.runs import ROOT, TINY

LIMIT = 4 * 3600  # seconds per case
SCALE = 1.0
_GIB = 2**30
_PREPARING = ('bert_jax.bin.prepare', f'--config={TINY}:pretrain', '--config.data.length=128')
_ROWS = 'length128'


class Usage(NamedTuple):
    """What a command used: seconds, and the bytes of memory of its processes, sampled five times a second."""

    seconds: float
    memory: list[int]


def prepare(folder: pathlib.Path) -> dict[str, Any]:
    """Return what the cases share: nothing."""
    return {}


def try_case(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> str:
    """Try one case; return its kind."""
    kind = rng.choice([*LOADS])
    LOADS[kind](rng, folder)
    return kind


def _try_steps(rng: random.Random, folder: pathlib.Path) -> None:
    """Many steps with saves, evaluations and metrics: memory, files and step time do not grow."""
    steps = _scaled(100_000)
    often = max(1, steps // 20)
    _write_lines(folder / 'corpus.txt', sentences(rng, 200))
    settings = (
        'data.length=16',
        'train.batch_size=8',
        'data.validation_fraction=0.1',
        'tokenizer.vocab_size=100',
    )
    cadence = (
        f'train.steps={steps}',
        f'train.eval_every={often}',
        f'checkpoint.every={often}',
        'train.log_every=10',
    )
    usage = _train(folder, 'pretrain', f'data.sources={folder}/corpus.txt', *settings, *cadence)
    lines = [line['tokens_per_second'] for line in runs.read(folder / 'run').train]
    assert len(lines) == steps // 10
    second, last = (statistics.median(_quarter(lines, i)) for i in (1, 3))
    assert last > 0.7 * second, (
        f'{second:.0f} tokens per second in the second quarter, {last:.0f} in the last'
    )
    if SCALE == 1:  # a short run is still growing
        second, last = (statistics.median(_quarter(usage.memory, i)) for i in (1, 3))
        assert last < 1.01 * second, (
            f'{second / _GIB:.3f} GiB in the second quarter, {last / _GIB:.3f} in the last'
        )
    assert len(names := [*(folder / 'run').rglob('*')]) < 300, f'{len(names)} files'


def _try_runs(rng: random.Random, folder: pathlib.Path) -> None:
    """Many runs in a folder: their state and report appear within seconds."""
    _write_lines(folder / 'corpus.txt', sentences(rng, 200))
    _train(folder, 'pretrain', f'data.sources={folder}/corpus.txt', 'tokenizer.vocab_size=100')
    for i in range(count := _scaled(1000)):
        shutil.copytree(
            folder / 'run', folder / 'runs' / f'{i}', ignore=shutil.ignore_patterns('rows', 'tensorboard')
        )
    for arguments in (
        ('status', folder / 'runs'),
        ('report', folder / 'runs', f'--out={folder}/report.html'),
    ):
        usage = _run(f'bert_jax.bin.{arguments[0]}', *arguments[1:])
        assert usage.seconds < 5 + 25 * (SCALE < 1), (
            f'{arguments[0]} of {count} runs took {usage.seconds:.1f} s'
        )


def _try_text(rng: random.Random, folder: pathlib.Path) -> None:
    """Much text, prepared in little memory, also after a death."""
    words = [''.join(rng.choices('abcdefghijklmnop', k=rng.randint(2, 9))) for _ in range(20_000)]
    blocks = ['\n'.join(' '.join(rng.choices(words, k=60)) for _ in range(200)) + '\n\n' for _ in range(100)]
    _write(folder / 'corpus.txt', (rng.choice(blocks) for _ in itertools.count()), _scaled(5_000_000_000))
    rows, death = folder / 'rows' / f'{_ROWS}.partial', rng.uniform(0.05, 0.8) * _scaled(2_500_000_000)
    _prepare(folder, stop=lambda: sum(path.stat().st_size for path in rows.glob('*.array_record')) > death)
    assert rows.exists(), 'the process ended before it was killed'
    _prepare(folder)


def _try_long_line(rng: random.Random, folder: pathlib.Path) -> None:
    """A text without a line break."""
    words = [sentence.lower() + ' ' for sentence in sentences(rng, 1000)]
    _write(folder / 'corpus.txt', (rng.choice(words) for _ in itertools.count()), _scaled(2_000_000_000))
    _prepare(folder, limit=1.25)  # one text cannot be encoded in parts


def _try_documents(rng: random.Random, folder: pathlib.Path) -> None:
    """Many documents of a few words."""
    count = _scaled(1_000_000)
    _write_lines(folder / 'corpus.txt', (f'Bird {i} sings.\n' for i in range(count)))
    counts = _prepare(folder, 'task.sentence_objective=none')
    documents = counts['train_documents'] + counts['validation_documents']
    assert documents == count, f'{documents} documents of {count}'


def _try_classes(rng: random.Random, folder: pathlib.Path) -> None:
    """Many classes."""
    count = _scaled(2000)
    records = [{'text': f'the dog {i}', 'label': f'class {i % count}'} for i in range(3 * count)]
    for split in ('train', 'validation'):
        _write_lines(folder / f'{split}.jsonl', map(json.dumps, rng.sample(records, len(records))))
    _write_lines(folder / 'corpus.txt', (record['text'] for record in records))
    _train(folder, 'pretrain', f'data.sources={folder}/corpus.txt', 'tokenizer.vocab_size=200', name='first')
    start = f'init.checkpoint={folder}/first'
    _train(folder, 'classify', f'data.source={folder}/{{split}}.jsonl', start, 'train.steps=5')
    _run(
        'bert_jax.bin.predict',
        f'--checkpoint={folder}/run',
        f'--input={folder}/train.jsonl',
        f'--output={folder}/out.jsonl',
    )
    predictions = (folder / 'out.jsonl').read_text().splitlines()
    assert len(predictions) == len(records), f'{len(predictions)} predictions of {len(records)}'


def _try_vocabulary(rng: random.Random, folder: pathlib.Path) -> None:
    """A vocabulary of many words."""
    size = _scaled(200_000)
    words = [f'{a}{b}' for a, b in itertools.product(_syllables(rng), repeat=2)][: 2 * size]
    lines = (' '.join(words[i : i + 20]) for i in range(0, len(words), 20))
    _write_lines(folder / 'corpus.txt', (line for line in lines for _ in range(3)))
    _train(
        folder,
        'pretrain',
        f'data.sources={folder}/corpus.txt',
        f'tokenizer.vocab_size={size}',
        'train.steps=3',
    )


LOADS: dict[str, Callable[[random.Random, pathlib.Path], None]] = {
    'steps': _try_steps,
    'runs': _try_runs,
    'text': _try_text,
    'long line': _try_long_line,
    'documents': _try_documents,
    'classes': _try_classes,
    'vocabulary': _try_vocabulary,
}


def _scaled(size: int) -> int:
    return max(20, round(size * SCALE))


def _syllables(rng: random.Random) -> list[str]:
    return [*{''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=4)) for _ in range(800)}]


def _quarter(values: list[Any], i: int) -> list[Any]:
    return values[i * len(values) // 4 : (i + 1) * len(values) // 4]


def _write_lines(path: pathlib.Path, lines: Any) -> None:
    with path.open('w') as file:
        file.writelines(f'{line}\n' for line in lines)


def _write(path: pathlib.Path, parts: Iterator[str], size: int) -> None:
    with path.open('w') as file:
        written = 0
        while written < size:
            written += file.write(next(parts))


def _prepare(
    folder: pathlib.Path, *settings: str, limit: float = 1.0, stop: Callable[[], bool] = lambda: False
) -> dict[str, int]:
    """Prepare `corpus.txt` within a limit of memory in GiB, or until it is time to stop; return the counts of the rows."""
    settings = f'data.sources={folder}/corpus.txt', 'tokenizer.vocab_size=8192', *settings
    overrides = (f'--config.{setting}' for setting in settings)
    usage = _run(*_PREPARING, f'--rows={folder}/rows', *overrides, stop=stop)
    assert max(usage.memory) < limit * _GIB, f'{max(usage.memory) / _GIB:.2f} GiB'
    return read_manifest(folder / 'rows' / _ROWS)['counts'] if not stop() else {}


def _train(folder: pathlib.Path, config: str, *settings: str, name: str = 'run') -> Usage:
    overrides = (f'--config.{setting}' for setting in settings)
    return _run('bert_jax.bin.train', f'--config={TINY}:{config}', f'--workdir={folder}/{name}', *overrides)


def _run(*arguments: object, stop: Callable[[], bool] = lambda: False) -> Usage:
    """Run a command, and kill it when it is time to stop."""
    command, memory, start = [sys.executable, '-m', *map(str, arguments)], [], time.monotonic()
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with tempfile.TemporaryFile('w+') as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=errors, stderr=errors, start_new_session=True
        )
        while process.poll() is None:
            memory.append(_resident(process.pid))
            if stop():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        errors.seek(0)
        assert process.returncode == 0 or stop(), f'status {process.returncode}: {errors.read()[-600:]}'
    return Usage(time.monotonic() - start, memory)


def _resident(pid: int) -> int:
    """Return the bytes of memory of a process and its descendants."""
    try:
        pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
        children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf('SC_PAGESIZE') + sum(map(_resident, map(int, children)))
