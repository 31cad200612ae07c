"""Jobs: failures and their reasons, signals, the division of cores, and jobs that run again after a change."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import types

import pytest

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs
from bert_jax.experiments.jobs import Job
from tests.experiments.test_fingerprint import CONFIG, write_checkpoint
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


@pytest.fixture
def started(monkeypatch):
    """Jobs finish at once, each training run with a checkpoint; a list of the folders in which jobs have started."""
    folders = []

    def start(job, _):
        folders.append(job.folder)
        (job.folder / 'metrics.jsonl').write_text('')
        if not job.checkpoint:
            write_checkpoint(job.folder, 1, scores=len(folders))
        exited = types.SimpleNamespace(returncode=0, poll=lambda: 0)
        return jobs._Process(job, exited, 0.0, 0)

    monkeypatch.setattr(jobs, '_start', start)
    return folders


def read_warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']


def write_config(file, rate, time):
    """Write a config file, with a time of change in seconds, which Python compares to find out whether it has changed."""
    file.write_text(CONFIG.format(tiny=str(TINY), rate=rate))
    os.utime(file, (time, time))


def test_job_runs_again_after_its_config_file_was_edited(tmp_path, started, caplog):
    config, folder = tmp_path / 'config.py', tmp_path / 'seed1'
    write_config(config, 5e-5, time=1)
    job = Job(folder, str(config), ('train.seed=1',))
    for _ in range(2):
        assert jobs.run([job], tmp_path) == {}
    assert started == [folder]
    assert not jobs.find_unfinished([job])
    write_config(config, 3e-5, time=2)
    change = 'optim.learning_rate was 5e-05, is 3e-05'
    assert jobs.find_unfinished([job]) == {folder: change}
    assert jobs.describe_unfinished({folder: change, tmp_path: ''}) == [f'{folder}: {change}', str(tmp_path)]
    assert jobs.run([job], tmp_path) == {}
    assert read_warnings(caplog) == [
        f'{folder}: {change}; running it again. The earlier result is in {tmp_path}/seed1.earlier1'
    ]
    write_config(config, 1e-5, time=3)
    assert jobs.run([job], tmp_path) == {}
    assert started == [folder] * 3
    rates = [
        json.loads((tmp_path / name / 'done.json').read_text())['fingerprint']['configs']['']['optim'][
            'learning_rate'
        ]
        for name in ('seed1.earlier1', 'seed1.earlier2', 'seed1')
    ]
    assert rates == [5e-5, 3e-5, 1e-5]
    assert (tmp_path / 'seed1.earlier1/checkpoints/1').is_dir()
    assert not jobs.find_unfinished([job])


def make_chain(folder, *settings):
    """A training run, a second one that starts from it, and an evaluation of the second."""
    first = Job(folder / 'first', f'{TINY}:pretrain', settings)
    second = Job(folder / 'second', f'{TINY}:classify', (f'init.checkpoint={first.folder}',), first.folder)
    third = Job(folder / 'third', f'{TINY}:classify', (), second.folder, str(second.folder))
    return [first, second, third]


def test_jobs_run_again_after_a_job_that_they_depend_on(tmp_path, started, caplog):
    folders = [job.folder for job in make_chain(tmp_path)]
    assert jobs.run(make_chain(tmp_path), tmp_path) == {}
    assert started == folders
    changed = make_chain(tmp_path, 'data.length=16')
    assert jobs.find_unfinished(changed) == {
        folders[0]: 'data.length was 32, is 16',
        folders[1]: f'{folders[0]} runs again',
        folders[2]: f'{folders[1]} runs again',
    }
    assert jobs.run(changed, tmp_path) == {}
    assert started == folders * 2
    assert [message.partition('; running')[0] for message in read_warnings(caplog)] == [
        f'{folders[0]}: data.length was 32, is 16',
        f'{folders[1]}: the checkpoint, step 1 of {folders[0]}, has been replaced',
        f'{folders[2]}: the checkpoint, step 1 of {folders[1]}, has been replaced',
    ]
    assert not jobs.find_unfinished(changed)


def test_job_is_kept_if_the_checkpoint_has_not_changed(tmp_path, started):
    chain = make_chain(tmp_path)
    jobs.run(chain, tmp_path)
    shutil.rmtree(chain[0].folder)
    del started[:]  # so that the first job writes the same checkpoint again
    assert jobs.run(chain, tmp_path) == {}
    assert started == [chain[0].folder]


def test_result_of_an_interrupted_upstream_does_not_count(tmp_path, started):
    chain = make_chain(tmp_path)
    jobs.run(chain, tmp_path)
    (chain[0].folder / jobs.DONE).unlink()
    assert [*jobs.find_unfinished(chain)] == [job.folder for job in chain]
    shutil.rmtree(chain[0].folder)
    assert [*jobs.find_unfinished(chain)] == [chain[0].folder], (
        'a deleted checkpoint does not invalidate a result'
    )


def test_result_without_a_fingerprint_is_unknown(tmp_path, started, caplog):
    job = Job(tmp_path / 'x', f'{TINY}:classify', ())
    job.folder.mkdir()
    for content in ({'config': job.config, 'settings': []}, {'fingerprint': {'configs': {}}}, []):
        (job.folder / jobs.DONE).write_text(json.dumps(content))
        caplog.clear()
        assert jobs.run([job], tmp_path) == {}
        assert (
            f'{job.folder}: it is unknown what its result was computed from; running it again' in caplog.text
        )
    assert len(started) == len([*tmp_path.glob('x.earlier*/done.json')]) == 3


def test_interrupted_job_resumes_only_without_a_change(tmp_path, started):
    job = Job(tmp_path / 'x', f'{TINY}:classify', ())
    jobs.run([job], tmp_path)
    (job.folder / jobs.DONE).unlink()
    assert jobs.find_unfinished([job]) == {job.folder: ''}
    jobs.run([job], tmp_path)
    assert not [*tmp_path.glob('x.earlier*')]
    (job.folder / jobs.DONE).unlink()
    jobs.run([job._replace(settings=('train.steps=9',))], tmp_path)
    assert (tmp_path / 'x.earlier1/checkpoints/1').is_dir()
    assert len(started) == 3


def test_nothing_is_set_aside_before_there_is_a_result(tmp_path, started):
    job = Job(tmp_path / 'x', f'{TINY}:classify', ())
    job.mark_started()  # and failed
    jobs.run([job._replace(settings=('train.steps=9',))], tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ['x']


def test_folder_in_use_is_not_renamed(tmp_path, started):
    job = Job(tmp_path / 'x', f'{TINY}:classify', ())
    jobs.run([job], tmp_path)
    with paths.lock_workdir(job.folder):
        failures = jobs.run([job._replace(settings=('train.steps=9',))], tmp_path)
    assert 'Another process is using' in failures[job.folder]
    assert len(started) == 1
