"""Part `kills`: trainings that die at random moments, and are resumed until they end.

All logged metrics, the final parameters and the optimizer state equal those of the uninterrupted run, to the bit.
"""

import pathlib
import random
import shutil
from typing import Any

from tests.campaign import faults, trainings

LIMIT = 1800  # seconds per case
prepare = trainings.make


def try_case(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> str:
    """Try one case; return its kind."""
    kind = rng.choice([*shared])
    training = shared[kind]
    workdir = folder / '0'
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
        workdir = pathlib.Path(shutil.copytree(workdir, folder / f'{death}')) if workdir.exists() else workdir
        if rng.random() < 0.3 and (metrics := workdir / 'metrics.jsonl').exists():
            with metrics.open('a') as file:
                file.write('{"step": 99, "lo')
    if workdir == folder / '0':
        workdir = folder / 'again'
    assert training.run(workdir) == 0
    training.check_equal(workdir)
    return kind
