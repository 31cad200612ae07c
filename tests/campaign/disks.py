"""Part `disks`: writes that fail or are slow, full disks, listings out of date, and damaged files of a run.

A run resumes from what is whole, or ends in one message; what was saved before is kept. Once the disk or the file is as
before, the run ends like the uninterrupted one, to the bit.
"""

import contextlib
import errno
import io
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from bert_jax.core import cli
from bert_jax.core.errors import UserError
from bert_jax.experiments import status
from bert_jax.train import checkpoint
from tests.campaign import faults, trainings
from tests.campaign.harness import Skipped, check_message
from tests.campaign.trainings import Training

LIMIT = 1800  # seconds per case
_CODES = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT)
prepare = trainings.make


def try_case(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> str:
    """Try one case; return its kind."""
    name = rng.choice(('pretrain', 'finetune'))
    kinds = {
        'failed write': _try_failed_write,
        'full disk': _try_full_disk,
        'slow writes': _try_slow_writes,
        'stale listings': _try_stale_listings,
        'damaged file': _try_damaged_file,
    }
    kind = rng.choice([*kinds, 'stale listings', *['damaged file'] * 3])
    kinds[kind](rng, folder, shared[name])
    return kind


def _run(training: Training, workdir: pathlib.Path) -> str:
    """Run a training; return the message with which a command would end, or '' if it succeeds."""
    try:
        assert training.run(workdir) == 0
        return ''
    except AssertionError:
        raise
    except UserError as e:
        if len(str(e)) < 1500:
            check_message(e)
        return str(e)
    except Exception as e:
        with contextlib.redirect_stderr(io.StringIO()) as stream:
            if cli.report_error(e) is None:
                raise
        assert stream.getvalue().count('\n') == 1, stream.getvalue()
        return stream.getvalue()


def _saved(workdir: pathlib.Path) -> list[str]:
    return [step.name for step in checkpoint.list_steps(workdir)]


def _copy_run(rng: random.Random, folder: pathlib.Path, training: Training) -> pathlib.Path:
    """Copy the uninterrupted run, often without its last checkpoint."""
    workdir = pathlib.Path(shutil.copytree(training.reference, folder / 'run'))
    if rng.random() < 0.7:
        shutil.rmtree(checkpoint.list_steps(workdir)[-1])
    return workdir


def _try_failed_write(rng: random.Random, folder: pathlib.Path, training: Training) -> None:
    """Let a write of a run fail, and all later ones or none."""
    code, workdir = rng.choice(_CODES), folder / 'run'
    fault = faults.Fault(
        workdir,
        rng.randint(1, training.writes),
        lambda path: OSError(code, os.strerror(code), path),
        calls=False,
        once=rng.random() < 0.5,
    )
    with faults.inject(fault):
        message = _run(training, workdir)
    if fault.has_struck and not fault.once:  # the folder itself stays as it is
        workdir = (
            pathlib.Path(shutil.copytree(workdir, folder / 'copy')) if workdir.exists() else folder / 'copy'
        )
    assert _run(training, workdir) == '', f'cannot be resumed after {message}'
    training.check_equal(workdir)


def _try_slow_writes(rng: random.Random, folder: pathlib.Path, training: Training) -> None:
    """Let all writes from one on wait, some of them for long."""
    fault = faults.Fault(
        folder / 'run',
        rng.randint(1, training.writes),
        lambda path: time.sleep(rng.choice((0.001, 0.001, 0.01, 0.3))),
        calls=False,
    )
    with faults.inject(fault):
        message = _run(training, folder / 'run')
    assert not message, message
    training.check_equal(folder / 'run')


def _try_stale_listings(rng: random.Random, folder: pathlib.Path, training: Training) -> None:
    """Resume a run whose folders are listed as they were a while ago, as network file systems may do."""
    workdir = _copy_run(rng, folder, training)
    with faults.stale_listings(rng, workdir):
        message = _run(training, workdir)
    assert _run(training, workdir) == '', f'cannot be resumed after {message}'
    training.check_equal(workdir)


@contextlib.contextmanager
def _small_disk(kilobytes: int) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix='campaign-disk-') as folder:
        mount = ['mount', '-t', 'tmpfs', '-o', f'size={kilobytes}k', 'tmpfs', folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skipped(f'a small disk cannot be mounted here ({done.stderr.strip()})')
        try:
            yield pathlib.Path(folder)
        finally:
            subprocess.run(['umount', '-l', folder], check=True)


def _try_full_disk(rng: random.Random, folder: pathlib.Path, training: Training) -> None:
    """Run on a disk that is too small, then enlarge it."""
    needed = sum(f.stat().st_size for f in training.reference.rglob('*') if f.is_file()) // 1024
    with _small_disk(rng.randint(16, needed + 200)) as disk:
        message = _run(training, disk / 'run')
        saved = _saved(disk / 'run')
        subprocess.run(['mount', '-o', f'remount,size={64 * needed}k', str(disk)], check=True)
        assert _saved(disk / 'run') == saved
        assert _run(training, disk / 'run') == '', f'cannot be resumed after {message}'
        training.check_equal(disk / 'run')


def _try_damaged_file(rng: random.Random, folder: pathlib.Path, training: Training) -> None:
    """Damage one file of a run that is complete, or that has lost its last checkpoint."""
    workdir = _copy_run(rng, folder, training)
    file = rng.choice(sorted(f for f in workdir.rglob('*') if f.is_file() and f.name != '.lock'))
    data, name = file.read_bytes(), file.relative_to(workdir)
    kind = rng.choice(('empty', 'half', 'bit', 'bit', 'missing', 'zeros'))
    if kind == 'missing':
        file.unlink()
    else:
        file.write_bytes(_damage(rng, data, kind))
    saved, what = _saved(workdir), f'{kind} {name}'
    try:
        with contextlib.suppress(UserError):  # there may be no config
            status.describe(workdir)
        message = _run(training, workdir)
        lost = (
            {*saved[-1:]}
            - {*_saved(workdir)}
            - {p.name.split('-')[1] for p in workdir.glob('checkpoints/damaged-*')}
        )
        assert not lost, f'checkpoint {lost} is gone'
        if message:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            assert _run(training, workdir) == '', f'cannot be resumed after {message}'
        elif 'tensorboard' not in str(name):
            status.describe(workdir)
        if name.name == '_sharding' and file.exists():
            file.write_bytes(data)  # the run does not read it, but the check of its arrays does
        if not (message == '' and name.name == 'metrics.jsonl'):  # damaged lines are left out
            training.check_equal(workdir)
    except Exception as e:
        e.args = (f'{what}: {e}',)
        raise


def _damage(rng: random.Random, data: bytes, kind: str) -> bytes:
    if kind == 'bit' and data:
        i = rng.randrange(len(data))
        return data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :]
    if kind == 'zeros':  # what a crash of the machine may leave of a block
        start = rng.randrange(len(data) + 1)
        return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]
    return data[: len(data) // 2] if kind == 'half' else b''
