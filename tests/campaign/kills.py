"""Part `kills`: trainings, tables and sweeps that die at random moments, and are resumed until they end.

All logged metrics, the final parameters and the optimizer state equal those of the uninterrupted run, to the bit. Most
deaths are exceptions in this process, after which nothing more is written. Some are signals to a separate process, or to
one of two processes of a job, which is resumed by one, two or four and then has the same metrics up to rounding.
"""

import contextlib
import pathlib
import random
import shutil
import signal
import time
from typing import Any

from tests.campaign import faults, trainings
from tests.campaign.trainings import Training
from tests.runs import metric_lines, run_command
from tests.train.test_distributed import assert_close, start, wait

LIMIT = 1800  # seconds per case
prepare = trainings.make
_SIGNALS = ('SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP')
_STATUSES = (0, 75, 130, -1, -2, -9, -15)  # done, stopped after saving, interrupted, or ended by the signal
_CODE = """
import os, pathlib, signal
from tests.campaign import faults
fault = faults.Fault({workdir!r}, {moment}, lambda _: os.kill(os.getpid(), signal.{signal}), once=True)
faults.inject(fault).__enter__()
"""


def try_case(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> str:
    """Try one case; return its kind."""
    kind = rng.choice(('pretrain', 'phases', 'finetune', 'table', 'sweep'))
    training, workdir = shared[kind], folder / '0'
    if training.arguments and rng.random() < 0.05:
        return f'{kind} by two processes, {_kill_one_of_two(rng, training, workdir)}'
    if training.arguments and rng.random() < 0.2:
        return f'{kind} by {_send_signal(rng, training, workdir)}'
    for death in range(1, rng.choice((2, 2, 3, 4))):
        fault = faults.Fault(workdir, rng.randint(1, training.moments))
        try:
            with faults.inject(fault):
                training.run(workdir)
        except BaseException:
            if not fault.has_struck:
                raise
        if not fault.has_struck:  # the rest of the run has fewer moments
            break
        # Threads may still be writing in the folder, as those of a process that has died would not.
        workdir = _copy(workdir, folder / f'{death}')
        if rng.random() < 0.3 and (metrics := workdir / 'metrics.jsonl').exists():
            with metrics.open('a') as file:
                file.write('{"step": 99, "lo')
    assert training.run(workdir) == 0
    training.check_equal(workdir)
    return kind


def _copy(workdir: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    if not workdir.exists():
        return target
    return pathlib.Path(shutil.copytree(workdir, target, copy_function=_copy_if_there))


def _copy_if_there(source: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a thread has renamed it meanwhile
        shutil.copy2(source, target)


def _kill_one_of_two(rng: random.Random, training: Training, workdir: pathlib.Path) -> str:
    arguments = ('train', f'--workdir={workdir}', *training.arguments)
    job, step = start(2, *arguments), rng.randint(0, 7)
    while len(_losses(workdir)) < step and all(process.poll() is None for process in job):
        time.sleep(0.02)
    job[rng.randrange(2)].send_signal(number := rng.choice((signal.SIGKILL, signal.SIGTERM)))
    _, outputs = wait(job, LIMIT)
    assert 'Traceback' not in outputs[0][1], outputs[0][1][-600:]
    statuses, outputs = wait(start(count := rng.choice((1, 2, 4)), *arguments), LIMIT)
    assert statuses == [0] * count, outputs
    assert_close(metric_lines(workdir), metric_lines(training.reference))
    return number.name


def _losses(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return metric_lines(workdir) if (workdir / 'metrics.jsonl').exists() else []


def _send_signal(rng: random.Random, training: Training, workdir: pathlib.Path) -> str:
    name, moment = rng.choice(_SIGNALS), rng.randint(1, training.moments)
    code = _CODE.format(workdir=str(workdir), moment=moment, signal=name)
    arguments = ('bert_jax.bin.train', f'--workdir={workdir}', *training.arguments)
    done = run_command(*arguments, code=code, timeout=LIMIT)
    assert done.returncode in _STATUSES, f'status {done.returncode} after {name}: {done.stderr[-400:]}'
    assert 'Traceback' not in done.stderr, done.stderr[-600:]
    assert training.run(workdir) == 0
    training.check_equal(workdir)
    return name
