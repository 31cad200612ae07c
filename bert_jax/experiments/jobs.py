"""Run training, evaluation and study jobs as subprocesses, respecting their dependencies."""

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
ROOT = str(pathlib.Path(__file__).parents[2])  # on the PYTHONPATH of every job


class Job(NamedTuple):
    """One process: a training run, an eval command or a study.

    Attributes:
      folder: the working directory of a training run, or the folder for the scores of an evaluation or study.
      config: the config file, with its argument; for a study, its command, written `bin/STUDY.py`.
      settings: config overrides `a.b=value`; for a study, its flags `name=value`.
      depends_on: the folder of a job that must finish first; None for no dependency.
      checkpoint: the checkpoint to evaluate or study; empty for a training run.
      watch: whether to run at the same time as `depends_on` and evaluate each new checkpoint (only on SLURM).
    """

    folder: pathlib.Path
    config: str
    settings: tuple[str, ...]
    depends_on: pathlib.Path | None = None
    checkpoint: str = ''
    watch: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the job finished successfully with the current settings."""
        try:
            return json.loads((self.folder / DONE).read_text()) == self.record
        except (OSError, ValueError):
            return False

    @property
    def record(self) -> dict[str, Any]:
        """The content that `done.json` has after the job has finished."""
        record = {'config': self.config, 'settings': [*self.settings]}
        return record | ({'checkpoint': self.checkpoint} if self.checkpoint else {})

    @property
    def is_study(self) -> bool:
        return self.config.startswith('bin/')

    @property
    def arguments(self) -> list[str]:
        """The module to run and its command-line arguments.

        Raises:
          UserError: if the task of the config has no eval command.
        """
        checkpoint = f'--checkpoint={self.checkpoint}'
        if self.is_study:
            module = f'bert_jax.bin.{pathlib.Path(self.config).stem}'
            return [module, checkpoint, f'--out={self.folder}', *(f'--{s}' for s in self.settings)]
        config = [f'--config={self.config}', *(f'--config.{s}' for s in self.settings)]
        if not self.checkpoint:
            return ['bert_jax.bin.train', f'--workdir={self.folder}', *config]
        task = experiment.read(self.config, self.settings).task.name
        if importlib.util.find_spec(f'bert_jax.bin.eval_{task}') is None:
            raise UserError(
                f'{self.config!r} has the task {task!r}, which no eval command scores. Choose the config of a downstream task.'
            )
        return [f'bert_jax.bin.eval_{task}', checkpoint, f'--out={self.folder / SCORES}', *config]

    @property
    def command(self) -> list[str]:
        """The complete command line, including the Python interpreter."""
        # The timeout is long because the training job may wait in the queue.
        watch = ['--watch', f'--timeout={7 * 24 * 3600}'] if self.watch else []
        return [sys.executable, '-m', *self.arguments, *watch]

    def mark_finished(self) -> None:
        paths.write_atomic(self.folder / DONE, json.dumps(self.record, indent=2) + '\n')


def validate(jobs: Sequence[Job]) -> list[str]:
    """Validate the settings of all jobs.

    Returns:
      The checkpoint that each job needs, in the order of the jobs; empty for a job that needs none.

    Raises:
      UserError: if a job has invalid settings.
    """
    checkpoints = []
    for job in jobs:
        initial = '' if job.is_study else experiment.read(job.config, job.settings).init.checkpoint
        checkpoints.append(job.checkpoint or initial)
    return checkpoints


def run(jobs: Sequence[Job], folder: pathlib.Path, max_processes: int = 1) -> dict[pathlib.Path, str]:
    """Run all jobs that have not finished yet, resuming those that were interrupted.

    The output of a job is appended to `log.txt` in its folder. On Linux, parallel jobs get disjoint sets of cores.
    When a job fails, the jobs that depend on it are skipped and all others still run.

    Args:
      jobs: jobs in the order in which to start them.
      folder: parent folder of all jobs; it is locked against other processes until this function returns.
      max_processes: maximum number of jobs that run in parallel.

    Returns:
      The reason for each failure, by job folder.

    Raises:
      UserError: before any job starts, if one of them has invalid settings.
      KeyboardInterrupt: on SIGINT or SIGTERM, after all running jobs were stopped.
    """
    waiting = [job for job in jobs if not job.is_finished]
    produced = {str(job.folder) for job in jobs}
    failures: dict[pathlib.Path, str] = {}
    for job, checkpoint in zip(waiting, validate(waiting), strict=True):
        if checkpoint and checkpoint not in produced and not pathlib.Path(checkpoint).exists():
            failures[job.folder] = (
                f'error: The checkpoint {checkpoint!r} does not exist. Pass the --workdir of a training run.'
            )
    with paths.lock_workdir(folder):
        _run([job for job in waiting if job.folder not in failures], max_processes, failures)
    return failures


def _run(waiting: list[Job], max_processes: int, failures: dict[pathlib.Path, str]) -> None:
    running: dict[int, _Process] = {}
    cores = _split_cores(max_processes)
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            for slot, process in [*running.items()]:
                if process.popen.poll() is not None:
                    del running[slot]
                    _record_exit(process, failures)
            unfinished = {job.folder for job in (*waiting, *(process.job for process in running.values()))}
            for job in [job for job in waiting if job.depends_on not in unfinished]:
                free_slots = [slot for slot in range(max_processes) if slot not in running]
                if job.depends_on in failures:
                    failures[job.folder] = f'{str(job.depends_on)!r} failed'
                elif free_slots:
                    running[free_slots[0]] = _start(job, cores[free_slots[0]])
                else:
                    continue
                waiting.remove(job)
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.popen.terminate()
        for process in running.values():
            process.popen.wait()
        signal.signal(signal.SIGTERM, previous_handler)


def distinct_reasons(failures: Mapping[pathlib.Path, str]) -> list[str]:
    """Return the distinct failure reasons, in order of first occurrence."""
    return [*dict.fromkeys(failures.values())]


def footnotes(failures: Mapping[pathlib.Path, str]) -> list[str]:
    """Return one numbered line per distinct failure reason; a table cell refers to its number as `failed [1]`."""
    return [f'[{i}] {reason}' for i, reason in enumerate(distinct_reasons(failures), 1)]


def report_failures(failures: Mapping[pathlib.Path, str]) -> int:
    """Print each distinct failure reason to stderr. Return the exit status of the command: 1 after failures, else 0."""
    for reason in distinct_reasons(failures):
        first, *others = (folder for folder, why in failures.items() if why == reason)
        more = f' and {len(others)} more' if others else ''
        print(f'failed: {first}{more}: {reason}', file=sys.stderr)
    return 1 if failures else 0


class _Process(NamedTuple):
    """A running job.

    Attributes:
      job: the job itself.
      popen: handle of the process.
      start_time: when it started, in seconds of the monotonic clock.
      log_offset: size of the log in bytes when it started.
    """

    job: Job
    popen: 'subprocess.Popen[bytes]'
    start_time: float
    log_offset: int


def _start(job: Job, cores: set[int]) -> _Process:
    job.folder.mkdir(parents=True, exist_ok=True)
    logging.info('Started the job in %s', job.folder)
    with (job.folder / LOG).open('ab') as log:
        # With these variables of a surrounding cluster job, the process would try to join that job.
        env = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'OMPI_'))}
        env['PYTHONPATH'] = os.pathsep.join([ROOT, *filter(None, [env.get('PYTHONPATH')])])
        offset = log.tell()
        popen = subprocess.Popen(job.command, stdout=log, stderr=log, env=env)
    if cores:
        os.sched_setaffinity(popen.pid, cores)
    return _Process(job, popen, time.monotonic(), offset)


def _split_cores(n: int) -> list[set[int]]:
    """Split the CPU cores into n sets, one per process.

    The sets are empty, so that no process is pinned to cores, for n = 1 and on systems without core affinity.
    """
    if n == 1 or not hasattr(os, 'sched_getaffinity'):
        return [set()] * n
    cores = sorted(os.sched_getaffinity(0))
    return [{*cores[i::n]} or {*cores} for i in range(n)]


def _record_exit(process: _Process, failures: dict[pathlib.Path, str]) -> None:
    """Handle the exit of a process: mark its job as finished, or add the reason to `failures`."""
    job, status = process.job, process.popen.returncode
    if status:
        output = (job.folder / LOG).read_bytes()[process.log_offset :].decode(errors='replace')
        errors = [line for line in output.strip().splitlines()[-5:] if line.startswith('error')]
        how = f'killed by {signal.Signals(-status).name}' if status < 0 else f'exited with status {status}'
        failures[job.folder] = errors[-1] if errors else f'{how}; see {job.folder / LOG}'
        logging.warning('The job in %s failed', job.folder)
        return
    job.mark_finished()
    logging.info('Finished the job in %s after %.0f s', job.folder, time.monotonic() - process.start_time)
