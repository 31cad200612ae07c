"""Part `kills`: trainings and tables that die at random moments, and are resumed until they end.

All logged metrics, the final parameters and the optimizer state equal those of the uninterrupted run, to the bit. Most
deaths are exceptions in this process, after which nothing more is written. Some are signals to a separate process.
"""

import pathlib
import random
import shutil
from typing import Any

from tests.campaign import faults, trainings
from tests.campaign.trainings import Training
from tests.runs import run_command

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
    kind = rng.choice(('pretrain', 'finetune', 'table'))
    training, workdir = shared[kind], folder / '0'
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
    return pathlib.Path(shutil.copytree(workdir, target)) if workdir.exists() else target


def _send_signal(rng: random.Random, training: Training, workdir: pathlib.Path) -> str:
    signal, moment = rng.choice(_SIGNALS), rng.randint(1, training.moments)
    code = _CODE.format(workdir=str(workdir), moment=moment, signal=signal)
    arguments = ('bert_jax.bin.train', f'--workdir={workdir}', *training.arguments)
    done = run_command(*arguments, code=code, timeout=LIMIT)
    assert done.returncode in _STATUSES, f'status {done.returncode} after {signal}: {done.stderr[-400:]}'
    assert 'Traceback' not in done.stderr, done.stderr[-600:]
    assert training.run(workdir) == 0
    training.check_equal(workdir)
    return signal
