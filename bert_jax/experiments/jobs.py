"""Trainings and evaluations that wait for one another, some at a time, each in a process and a folder of its own."""

import importlib.util
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.train import experiment

DONE, LOG, SCORES = 'done.json', 'log.txt', 'scores.json'
ROOT = str(pathlib.Path(__file__).parents[2])  # where Python finds this package, whatever the folder


class Job(NamedTuple):
    """One run of `bin/train`, of an eval binary, or of a study.

    Attributes:
      place: its working directory, or the folder for its scores.
      config: its config file, with the argument; of a study its door, `bin/STUDY.py`.
      settings: `a.b=value`; of a study its flags, `name=value`.
      after: the working directory of a run that must end well before; None is none.
      scores: the checkpoint that it scores, if it does not train.
      watches: whether it runs beside `after` instead, and scores its newest checkpoint whenever there is one; on SLURM alone.
    """

    place: pathlib.Path
    config: str
    settings: tuple[str, ...]
    after: pathlib.Path | None = None
    scores: str = ''
    watches: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has ended well, with these settings."""
        try:
            return json.loads((self.place / DONE).read_text()) == self.about
        except (OSError, ValueError):
            return False

    @property
    def about(self) -> dict[str, Any]:
        """What stands in `done.json` when it has ended well."""
        about = {'config': self.config, 'settings': [*self.settings]}
        return about | ({'scores': self.scores} if self.scores else {})

    @property
    def command(self) -> list[str]:
        """What runs it, as a process."""
        # While the training waits in a queue there is nothing new to score.
        watching = ['--watch', f'--timeout={7 * 24 * 3600}'] if self.watches else []
        return [sys.executable, '-m', *self.words, *watching]

    @property
    def words(self) -> list[str]:
        """Its door with the arguments.

        Raises:
          UserError: if no eval binary scores the task of its config.
        """
        of = f'--checkpoint={self.scores}'
        if self.studies:
            door = f'bert_jax.bin.{pathlib.Path(self.config).stem}'
            return [door, of, f'--out={self.place}', *(f'--{s}' for s in self.settings)]
        config = [f'--config={self.config}', *(f'--config.{s}' for s in self.settings)]
        if not self.scores:
            return ['bert_jax.bin.train', f'--workdir={self.place}', *config]
        task = experiment.read(self.config, self.settings).task.name
        if importlib.util.find_spec(f'bert_jax.bin.eval_{task}') is None:
            raise UserError(f'{self.config!r} is of the task {task!r}, which no eval binary scores.')
        return [f'bert_jax.bin.eval_{task}', of, f'--out={self.place / SCORES}', *config]

    @property
    def studies(self) -> bool:
        return self.config.startswith('bin/')

    def finish(self) -> None:
        paths.write(self.place / DONE, json.dumps(self.about, indent=2) + '\n')


def check(jobs: Sequence[Job]) -> list[str]:
    """Raises UserError if one of them has settings that cannot be; returns the checkpoint of each, '' of none."""
    found = []
    for job in jobs:
        start = '' if job.studies else experiment.read(job.config, job.settings).init.checkpoint
        found.append(job.scores or start)
    return found


def run(jobs: Sequence[Job], folder: pathlib.Path, at_once: int = 1) -> dict[pathlib.Path, str]:
    """Runs what has not ended well yet; an interrupted run goes on where it was.

    Of several at once on Linux each has its share of the cores. What a run prints goes to `log.txt` in its
    working directory. A run that fails leaves the others; those that wait for it are not begun.

    Args:
      jobs: in the order in which they are begun.
      folder: of all of them; nobody else runs jobs in it meanwhile.
      at_once: how many processes.

    Returns:
      For each run that did not end well, why.

    Raises:
      UserError: before any run, if one of them has settings that cannot be.
      KeyboardInterrupt: if this process is told to stop, after it has stopped its runs.
    """
    waiting = [job for job in jobs if not job.finished]
    made = {str(job.place) for job in jobs}
    failed: dict[pathlib.Path, str] = {}
    for job, start in zip(waiting, check(waiting), strict=True):
        if start and start not in made and not pathlib.Path(start).exists():
            failed[job.place] = f'error: There is no checkpoint {start!r}: give the --workdir of a training.'
    with paths.held(folder):
        _run([job for job in waiting if job.place not in failed], at_once, failed)
    return failed


def _run(waiting: list[Job], at_once: int, failed: dict[pathlib.Path, str]) -> None:
    running: dict[int, _Running] = {}
    shares = _shares(at_once)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            for slot, one in [*running.items()]:
                if one.process.poll() is not None:
                    del running[slot]
                    _end(one, failed)
            todo = {job.place for job in (*waiting, *(one.job for one in running.values()))}
            for job in [job for job in waiting if job.after not in todo]:
                free = [slot for slot in range(at_once) if slot not in running]
                if job.after in failed:
                    failed[job.place] = f'{str(job.after)!r} failed'
                elif free:
                    running[free[0]] = _start(job, shares[free[0]])
                else:
                    continue
                waiting.remove(job)
            time.sleep(0.2)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()
        signal.signal(signal.SIGTERM, before)


def reasons(failed: Mapping[pathlib.Path, str]) -> list[str]:
    """Why runs did not end well, each reason once."""
    return [*dict.fromkeys(failed.values())]


def report(failed: Mapping[pathlib.Path, str]) -> int:
    """Prints the runs that did not end well, once for each reason; returns the status for a door to exit with."""
    for why in reasons(failed):
        first, *others = (place for place, reason in failed.items() if reason == why)
        more = f' and {len(others)} more' if others else ''
        print(f'failed: {first}{more}: {why}', file=sys.stderr)
    return 1 if failed else 0


class _Running(NamedTuple):
    """A process, when it began, and how long its log was then."""

    job: Job
    process: 'subprocess.Popen[bytes]'
    began: float
    logged: int


def _start(job: Job, cores: set[int]) -> _Running:
    job.place.mkdir(parents=True, exist_ok=True)
    logging.info('begins: %s', job.place)
    with (job.place / LOG).open('ab') as log:
        # Within a job of a cluster its processes are nevertheless jobs of their own.
        env = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'OMPI_'))}
        env['PYTHONPATH'] = os.pathsep.join([ROOT, *filter(None, [env.get('PYTHONPATH')])])
        logged = log.tell()
        process = subprocess.Popen(job.command, stdout=log, stderr=log, env=env)
    if cores:
        os.sched_setaffinity(process.pid, cores)
    return _Running(job, process, time.monotonic(), logged)


def _shares(n: int) -> list[set[int]]:
    """The cores of each of n processes; none where they cannot be had, or all are one's."""
    if n == 1 or not hasattr(os, 'sched_getaffinity'):
        return [set()] * n
    cores = sorted(os.sched_getaffinity(0))
    return [{*cores[i::n]} or {*cores} for i in range(n)]


def _end(one: _Running, failed: dict[pathlib.Path, str]) -> None:
    job, status = one.job, one.process.returncode
    if status:
        own = (job.place / LOG).read_bytes()[one.logged :].decode(errors='replace')
        said = [line for line in own.strip().splitlines()[-5:] if line.startswith('error')]
        how = f'ended by {signal.Signals(-status).name}' if status < 0 else f'ended with status {status}'
        failed[job.place] = said[-1] if said else f'{how}: see {job.place / LOG}'
        logging.warning('failed: %s', job.place)
        return
    job.finish()
    logging.info('ended: %s, %.0f s', job.place, time.monotonic() - one.began)
