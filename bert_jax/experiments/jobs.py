"""Run training, evaluation and study jobs as subprocesses, respecting their dependencies.

A job stores a fingerprint of everything that determines its results. If the fingerprint has changed
when the job is requested again, the folder of the job is renamed, and the job runs again.
"""

import contextlib
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
from typing import NamedTuple

from bert_jax.core import cli, paths
from bert_jax.core import config as config_lib
from bert_jax.core.errors import UserError
from bert_jax.evals import language_model
from bert_jax.experiments import fingerprint, runs
from bert_jax.train import experiment

# A job writes its record to `job.json` when it starts, and to `done.json` when it has finished successfully.
JOB, DONE, LOG, SCORES = 'job.json', 'done.json', 'log.txt', 'scores.json'
_RESULTS = (DONE, SCORES, 'metrics.jsonl', 'checkpoints', 'rows')  # what a job may lose if it starts again
ROOT = str(pathlib.Path(__file__).parents[2])  # on the PYTHONPATH of every job


class Job(NamedTuple):
    """One process: a training run, an eval command or a study.

    Attributes:
      folder: the working directory of a training run, or the folder for the scores of an evaluation or study.
      config: the config file, with its argument, that of `eval_lm` too; for a study or `eval_retrieval`, the command,
        written `bin/STUDY.py`.
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

    def read_change(self) -> str | None:
        """Read what has changed since the job ran.

        Returns:
          A phrase such as 'train.steps was 5, is 6'; empty if the job has not run or was interrupted, and nothing has
          changed; None if the job finished successfully, and nothing has changed.

        Raises:
          UserError: if the config is invalid.
        """
        is_finished = (self.folder / DONE).exists()
        if not any((self.folder / name).exists() for name in _RESULTS):
            return ''
        before = self._read_stored(DONE if is_finished else JOB)
        if before is None:
            # An unfinished job runs again in any case. A training run resumes only if its config
            # matches config.json in its working directory.
            return 'it is unknown what its result was computed from' if is_finished else ''
        changes = fingerprint.describe_changes(before, self._read_fingerprint())
        return config_lib.list_changes(changes) or (None if is_finished else '')

    def _read_stored(self, name: str) -> fingerprint.Fingerprint | None:
        """Read the fingerprint in a record; None if there is none."""
        try:
            return paths.read_json(self.folder / name)['fingerprint']
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _read_fingerprint(self) -> fingerprint.Fingerprint:
        return fingerprint.read(self.config, self.settings, self.checkpoint)

    @property
    def is_study(self) -> bool:
        return self.config.startswith('bin/')

    def read_experiment(self) -> experiment.Experiment | None:
        """Read the config; None for a study or an evaluation with `eval_lm`, whose settings are checked as well.

        Raises:
          UserError: if the config is invalid.
        """
        if self.is_study:
            name = pathlib.Path(self.config).stem
            if importlib.util.find_spec(f'bert_jax.bin.{name}') is None:
                known = [path.stem for path in pathlib.Path(ROOT, 'bert_jax', 'bin').glob('[!_]*.py')]
                raise UserError(
                    f'There is no command {self.config!r}: {config_lib.did_you_mean(name, known)}'
                )
            return None
        if language_model.is_config(self.config):
            language_model.read_config(self.config, self.settings)
            return None
        return experiment.read(self.config, self.settings)

    @property
    def arguments(self) -> list[str]:
        """The module to run and its command-line arguments.

        Raises:
          UserError: if the task of the config has no eval command.
        """
        checkpoint = f'--checkpoint={self.checkpoint}'
        if self.is_study:
            command = pathlib.Path(self.config).stem
            out = self.folder / SCORES if command.startswith('eval_') else self.folder
            return [f'bert_jax.bin.{command}', checkpoint, f'--out={out}', *(f'--{s}' for s in self.settings)]
        config = [f'--config={self.config}', *(f'--config.{s}' for s in self.settings)]
        if not self.checkpoint:
            return ['bert_jax.bin.train', f'--workdir={self.folder}', *config]
        read = self.read_experiment()
        task = read.task.name if read else 'lm'
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

    def mark_submitted(self) -> None:
        """Write the record of a job that starts later, and whose checkpoint may not exist yet."""
        self._write_record(self._read_stored(JOB))

    def mark_started(self) -> None:
        """Write the record of a job that starts now, with its current fingerprint."""
        if self._read_stored(JOB) and not (self.checkpoint or self.is_study):
            self._update_paths()
        self._write_record(self._read_fingerprint())

    def _update_paths(self) -> None:
        """Write the current paths of checkpoint and rows into the config of an interrupted run.

        A training run resumes only with the paths in its config, but the folder of all jobs may have been moved. That the
        checkpoint is the same was compared with the record; the rows are compared when the run reads them.
        """
        file = self.folder / 'config.json'
        now = experiment.read(self.config, self.settings).as_dict()
        # The run itself reports a damaged config.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            config = paths.read_json(file)
            config['init']['checkpoint'] = now['init']['checkpoint']
            if 'rows_dir' in now['data']:
                config['data']['rows_dir'] = now['data']['rows_dir']
            paths.write_atomic(file, config_lib.to_json(config))

    def mark_finished(self) -> None:
        """Mark the job as finished: copy the record that `mark_started` wrote, from `job.json` to `done.json`."""
        paths.write_atomic(self.folder / DONE, (self.folder / JOB).read_bytes())

    def _write_record(self, found: fingerprint.Fingerprint | None) -> None:
        record = {
            'config': self.config,
            'settings': self.settings,
            'checkpoint': self.checkpoint,
            'fingerprint': found,
        }
        paths.write_atomic(self.folder / JOB, json.dumps(record, indent=2) + '\n')


def validate(jobs: Sequence[Job]) -> list[str]:
    """Validate the settings of all jobs.

    Returns:
      The checkpoint that each job needs, in the order of the jobs; empty for a job that needs none.

    Raises:
      UserError: if a job has invalid settings.
    """
    checkpoints = []
    for job in jobs:
        config = job.read_experiment()
        if config and not job.checkpoint:
            config.check_splits()
        checkpoints.append(job.checkpoint or (config.init.checkpoint if config else ''))
    return checkpoints


def find_unfinished(jobs: Sequence[Job]) -> dict[pathlib.Path, str]:
    """Find the jobs that have to run.

    Args:
      jobs: jobs, each after the job that it depends on.

    Returns:
      By job folder, what has changed since the job ran, as in `Job.read_change`; empty if it has no result.
    """
    found: dict[pathlib.Path, str] = {}
    for job in jobs:
        change = job.read_change()
        upstream = job.depends_on
        if (
            change is None
            and upstream
            and upstream in found
            and (found[upstream] or (upstream / JOB).exists())
        ):
            change = f'{upstream} runs again'
        if change is not None:
            found[job.folder] = change
    return found


def describe_unfinished(unfinished: Mapping[pathlib.Path, str]) -> list[str]:
    """Return one line for each result of `find_unfinished`: the folder and, after a colon, what has changed."""
    return [f'{folder}: {change}' if change else f'{folder}' for folder, change in unfinished.items()]


def begin(job: Job) -> bool:
    """Prepare the folder of a job whose dependency has finished.

    If what the job depends on has changed since it ran, its folder is renamed, so that the job starts again.

    Returns:
      Whether the job has to run; False if it has finished, and nothing has changed.

    Raises:
      UserError: if another process uses the folder.
    """
    change = job.read_change()
    if change is None:
        return False
    if change:
        set_aside(job, change)
    job.mark_started()
    return True


def set_aside(job: Job, change: str) -> None:
    """Rename the folder of a job, and log what has changed."""
    kept = runs.set_aside(job.folder)
    logging.warning('%s: %s; running it again. The earlier result is in %s', job.folder, change, kept)


def run(jobs: Sequence[Job], folder: pathlib.Path, max_processes: int = 1) -> dict[pathlib.Path, str]:
    """Run all jobs that have not finished yet, or whose config, data or checkpoint has changed since.

    Interrupted jobs resume if nothing has changed; see `begin`. The output of a job is appended to `log.txt` in its folder. On Linux, parallel jobs get disjoint sets of cores.
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
    unfinished = {*find_unfinished(jobs)}
    waiting = []
    for job in jobs:
        # A finished job may have to run again after the job that it depends on.
        if {job.folder, job.depends_on} & unfinished:
            unfinished.add(job.folder)
            waiting.append(job)
    produced = tuple(f'{job.folder}/' for job in jobs)
    failures: dict[pathlib.Path, str] = {}
    for job, checkpoint in zip(waiting, validate(waiting), strict=True):
        if (
            checkpoint
            and not f'{checkpoint}/'.startswith(produced)
            and not paths.make_path(checkpoint).exists()
        ):
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
                    try:
                        if begin(job):
                            running[free_slots[0]] = _start(job, cores[free_slots[0]])
                    except (UserError, OSError) as e:
                        failures[job.folder] = f'error: {e}'
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


def main() -> None:
    """Write the record of a job on SLURM, whose folder is the argument, once the job that it depends on has finished.

    Raises:
      UserError: if the job was interrupted, and what it depends on has changed since it started.
    """
    folder = pathlib.Path(sys.argv[1])
    record = json.loads((folder / JOB).read_text())
    job = Job(folder, record['config'], tuple(record['settings']), checkpoint=record['checkpoint'])
    if change := job.read_change():
        raise UserError(
            f'{change} since the job in {str(folder)!r} started. Submit it again to run it from the start.'
        )
    job.mark_started()


if __name__ == '__main__':
    cli.run(main)
