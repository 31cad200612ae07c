"""Jobs: failures, their reasons, signals and the division of cores."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs
from bert_jax.experiments.jobs import Job
from tests.runs import TINY


def test_failing_job_leaves_the_others(tmp_path, labeled):
    bad = Job(tmp_path / 'bad', f'{TINY}:classify', (f'data.source={labeled}',))
    waits = Job(tmp_path / 'waits', f'{TINY}:classify', ('data.source=x',), tmp_path / 'bad')
    lost = Job(
        tmp_path / 'lost', f'{TINY}:classify', ('data.source=x', f'init.checkpoint={tmp_path / "none"}')
    )
    failed = jobs.run([bad, waits, lost], tmp_path)
    assert 'A downstream task needs a tokenizer' in failed[tmp_path / 'bad']
    assert 'does not exist' in failed[tmp_path / 'lost']
    assert not (tmp_path / 'lost').exists()
    assert failed[tmp_path / 'waits'] == f"'{tmp_path / 'bad'}' failed"


def test_reason_of_failure_ignores_earlier_output(tmp_path):
    job = Job(tmp_path, 'x.py', ())
    (tmp_path / jobs.LOG).write_text('error: from yesterday\n')
    process = subprocess.Popen(
        [sys.executable, '-c', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)']
    )
    process.wait()
    failed = {}
    jobs._record_exit(jobs._Process(job, process, 0.0, (tmp_path / jobs.LOG).stat().st_size), failed)
    assert failed[tmp_path] == f'killed by SIGKILL; see {tmp_path / jobs.LOG}'


def test_invalid_settings_are_an_error_before_any_job(tmp_path):
    with pytest.raises(UserError, match="did you mean 'steps'"):
        jobs.run([Job(tmp_path / 'x', f'{TINY}:classify', ('train.step=1',))], tmp_path)
    assert not (tmp_path / 'x').exists()


def test_sigterm_stops_the_running_jobs(tmp_path, monkeypatch):
    started = []

    def start(job, cores):
        started.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']))
        return jobs._Process(job, started[-1], 0.0, 0)

    monkeypatch.setattr(jobs, '_start', start)
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    todo = [Job(tmp_path / name, f'{TINY}:classify', ('data.source=x',)) for name in 'ab']
    with pytest.raises(KeyboardInterrupt):
        jobs.run(todo, tmp_path, max_processes=2)
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_cores_are_split():
    every = sorted(os.sched_getaffinity(0))
    found = jobs._split_cores(2)
    assert sorted(set().union(*found)) == every
    assert jobs._split_cores(1) == [set()]
