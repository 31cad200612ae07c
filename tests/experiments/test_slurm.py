"""Jobs on SLURM: batch scripts, and, where SLURM is installed, a local cluster of two nodes."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs, slurm
from bert_jax.experiments.jobs import Job, find_unfinished
from tests.runs import ROOT, TINY, metric_lines, run_in_process
from tests.train.test_distributed import INTERRUPTIBLE, assert_close


def test_arguments_are_quoted(tmp_path, monkeypatch):
    value = 'it\'s "here" $HOME `id` \\ ok'
    folder, tools = tmp_path / 'a b', tmp_path / 'bin'
    job = Job(folder, f'{TINY}:pretrain', (f'data.rows_dir={value}',))
    job.mark_submitted()
    tools.mkdir()
    for name in ('srun', "python it's"):  # print their arguments
        (tools / name).write_text(f'#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv[1:]))\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
    monkeypatch.setattr(sys, 'executable', str(tools / "python it's"))
    text = slurm.script(job, ['--comment=two words'])
    assert '#SBATCH "--comment=two words"' in text
    done = subprocess.run(['bash', '-c', text], capture_output=True, text=True, check=True)
    record, run = map(json.loads, done.stdout.splitlines())
    assert record == ['-m', 'bert_jax.experiments.jobs', str(folder)]
    assert f'--config.data.rows_dir={value}' in run
    assert json.loads((folder / 'done.json').read_text())['settings'] == [f'data.rows_dir={value}']


def test_record_of_a_job_has_what_it_depends_on(tmp_path, monkeypatch):
    job = Job(tmp_path, f'{TINY}:pretrain', ('train.steps=9',))
    job.mark_submitted()
    monkeypatch.setattr(sys, 'argv', ['jobs', str(tmp_path)])
    jobs.main()
    job.mark_finished()
    assert not find_unfinished([job])
    change = 'data.length was 32, is 16'
    assert find_unfinished([job._replace(settings=('train.steps=9', 'data.length=16'))]) == {tmp_path: change}


def test_job_that_follows_a_training_is_recorded_at_its_end(tmp_path):
    job = Job(tmp_path, f'{TINY}:classify', (), checkpoint='x')
    assert ' -m bert_jax.experiments.jobs "$folder" && srun ' in slurm.script(job)
    assert slurm.script(job._replace(watch=True)).count('&& ' + sys.executable) == 1


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Commands squeue and sbatch of a cluster with an empty queue, where each submitted job gets the id 7."""
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name, output in (('squeue', ''), ('sbatch', '7')):
        (tools / name).write_text(f'#!/bin/sh\necho {output}\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')


def finish(job):
    """Write the files of a finished training run."""
    job.mark_started()
    (job.folder / 'metrics.jsonl').write_text('')
    job.mark_finished()


def test_changed_job_is_submitted_again_and_its_result_kept(tmp_path, fake_slurm):
    job = Job(tmp_path / 'x', f'{TINY}:classify', ())
    finish(job)
    assert slurm.submit([(job, [])]) == {}
    changed = job._replace(settings=('train.steps=9',))
    assert slurm.submit([(changed, [])]) == {job.folder: '7'}
    assert (tmp_path / 'x.earlier1/metrics.jsonl').exists()
    assert sorted(path.name for path in job.folder.iterdir()) == ['job.json', 'slurm.id', 'slurm.sh']
    assert find_unfinished([changed]) == {job.folder: ''}


def test_job_whose_config_changed_after_its_start_is_not_requeued(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['jobs', str(tmp_path)])
    job = Job(tmp_path, f'{TINY}:classify', ())
    job.mark_submitted()
    jobs.main()
    (tmp_path / 'metrics.jsonl').write_text('')  # interrupted
    jobs.main()
    job._replace(settings=('train.steps=9',)).mark_submitted()
    with pytest.raises(UserError, match='^train.steps was 20, is 9 since the job in .* Submit it again'):
        jobs.main()


def test_launcher_does_not_replace_a_run(tmp_path, fake_slurm):
    words = (f'--config={TINY}:pretrain', f'--workdir={tmp_path / "x"}')
    finish(Job(tmp_path / 'x', f'{TINY}:pretrain', ()))
    assert 'already finished' in run_in_process(ROOT / 'launch/slurm.py', *words).stdout
    done = run_in_process(ROOT / 'launch/slurm.py', *words, '--config.train.steps=9')
    assert done.returncode == 1
    assert 'contains another run: train.steps was 20, is 9. Choose another --workdir' in done.stderr


@pytest.mark.parametrize('name', ['a\nb', 'a\\b'])
def test_folder_that_sbatch_cannot_handle_is_an_error(name, tmp_path):
    with pytest.raises(UserError, match='without backslashes and line breaks'):
        slurm.script(Job(tmp_path / name, f'{TINY}:pretrain', ()))


@pytest.mark.parametrize(
    ('flag', 'command'),
    [
        ('--sbatch', (ROOT / 'launch/slurm.py', '--config=configs/quickstart.py:pretrain', '--print')),
        (
            '--eval_sbatch',
            (ROOT / 'launch/slurm.py', '--config=configs/quickstart.py:pretrain', '--print', '--eval'),
        ),
        ('--slurm', ('bert_jax.bin.sweep', '--config=configs/finetune/sst2.py')),
        ('--slurm', ('bert_jax.bin.table', '--config=configs/tables/bert_table5.py:mini')),
    ],
)
def test_unbalanced_quote_is_a_one_line_error(flag, command, tmp_path):
    done = run_in_process(*command, f'--workdir={tmp_path}', f"{flag}=--comment='x")
    assert done.returncode == 1
    (output,) = done.stderr.splitlines()
    assert output.startswith(f'error: {flag}="--comment=')
    assert output.endswith('Fix its quotes.')
    assert not [*tmp_path.iterdir()]


def test_missing_slurm_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match='squeue was not found'):
        slurm.submit([])


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """A local SLURM cluster of two nodes."""
    if not shutil.which('slurmctld') or os.geteuid():
        pytest.skip('needs root and: apt install slurmctld slurmd slurm-client munge')
    folder = tmp_path_factory.mktemp('slurm')
    script = str(ROOT / 'tests' / 'slurm_cluster.sh')
    subprocess.run(['bash', script, 'up', folder], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SLURM_CONF', str(folder / 'slurm.conf'))
        patch.setenv('XLA_FLAGS', os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=4'))
        yield
        subprocess.run(['bash', script, 'down', folder], check=True)


def launch(*words, command=('launch/slurm.py',)):
    command = [sys.executable, *command, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def wait_for(condition, log: pathlib.Path, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, [file.read_text() for file in log.glob('slurm-*.log')]
        time.sleep(0.2)


@pytest.mark.slow
def test_stopped_training_on_two_nodes_is_requeued_and_resumes(tmp_path, cluster, corpus, rows, pretrained):
    words = [f'--config={TINY}:pretrain', f'--workdir={tmp_path}', f"--config.data.sources=('{corpus}',)"]
    words += [f'--config.data.rows_dir={rows}', *(f'--config.{s}' for s in INTERRUPTIBLE)]
    words += ['--sbatch=--nodes=2 --ntasks-per-node=1']
    (number,) = re.findall(r'job (\d+)', launch(*words))
    assert f'job {number}' in launch(*words)  # still in the queue, so not submitted again
    metrics = tmp_path / 'metrics.jsonl'
    wait_for(lambda: metrics.exists() and len(metric_lines(tmp_path)) >= 4, tmp_path)
    subprocess.run(['scancel', '--signal=TERM', number], check=True)
    wait_for((tmp_path / 'done.json').exists, tmp_path)
    assert_close(metric_lines(tmp_path), metric_lines(pretrained))
    log = (tmp_path / f'slurm-{number}.log').read_text()
    assert re.search(r'stopped at step \d+ and saved', log)
    assert 'resuming at step' in log
    assert 'already finished' in launch(*words)


@pytest.mark.slow
def test_evaluation_follows_a_training(tmp_path, cluster, pretrained, labeled):
    words = [f'--config={TINY}:classify', f'--workdir={tmp_path}', f'--config.data.source={labeled}']
    words += [f'--config.init.checkpoint={pretrained}', '--config.train.steps=5']
    output = launch(*words, '--eval')
    assert len(re.findall(r'job \d+', output)) == 2
    wait_for((tmp_path / 'eval' / 'done.json').exists, tmp_path / 'eval')
    scores = json.loads((tmp_path / 'eval' / 'scores.json').read_text())
    assert scores['step'] == 5
    assert scores['scores']['loss'] == pytest.approx(metric_lines(tmp_path)[-1]['eval/loss'], rel=1e-5)


@pytest.mark.slow
def test_canceled_job_is_not_requeued(tmp_path, cluster, corpus, rows):
    words = [f'--config={TINY}:pretrain', f'--workdir={tmp_path}', f"--config.data.sources=('{corpus}',)"]
    (number,) = re.findall(
        r'job (\d+)', launch(*words, f'--config.data.rows_dir={rows}', '--config.train.steps=5000')
    )
    wait_for((tmp_path / 'metrics.jsonl').exists, tmp_path)
    subprocess.run(['scancel', number], check=True)
    squeue = ['squeue', '--noheader', '--states=all', f'--jobs={number}', '--format=%T']
    wait_for(lambda: 'CANCELLED' in subprocess.run(squeue, capture_output=True, text=True).stdout, tmp_path)
    time.sleep(6)  # a requeued job would have started by now
    assert 'CANCELLED' in subprocess.run(squeue, capture_output=True, text=True).stdout
    assert not (tmp_path / 'done.json').exists()


SWEEP_COMMAND = ('-m', 'bert_jax.bin.sweep')
SWEEP = """
import runpy

def get_config():
    return runpy.run_path({tiny!r})['get_config']('classify')

def sweep(add):
    for rate in (1e-3, 2e-3, 3e-3):
        add({{'optim.learning_rate': rate}})
"""


@pytest.mark.slow
def test_sweep_is_an_array_of_the_missing_jobs(tmp_path, cluster, pretrained, labeled):
    config, workdir = tmp_path / 'config.py', tmp_path / 'a b'
    config.write_text(SWEEP.format(tiny=str(TINY)))
    words = [f'--config={config}', f'--workdir={workdir}', f'--config.data.source={labeled}']
    words += [
        f'--config.init.checkpoint={pretrained}',
        '--config.train.steps=100',
        *(f'--config.{s}' for s in INTERRUPTIBLE),
        '--jobs=2',
    ]
    launch(*words, '--slurm=--ntasks=1', command=SWEEP_COMMAND)
    text = (workdir / 'array.sh').read_text()
    assert '--array=0-2%2' in text
    folders = [workdir / f'learning_rate=0.00{i}' / 'seed0' for i in (1, 2, 3)]
    launch(*words, '--slurm=--ntasks=1', command=SWEEP_COMMAND)  # still in the queue, so not submitted again
    with pytest.raises(subprocess.CalledProcessError) as rejected:
        launch(*words, '--config.train.log_every=7', '--slurm=--ntasks=1', command=SWEEP_COMMAND)
    assert 'is in the queue with other settings' in rejected.value.stderr
    wait_for(lambda: (folders[2] / 'metrics.jsonl').exists() and len(metric_lines(folders[2])) >= 4, workdir)
    last = (folders[2] / 'slurm.id').read_text().strip()  # the id of the array element
    subprocess.run(['scancel', '--signal=TERM', last], check=True)
    wait_for(lambda: all((folder / 'done.json').exists() for folder in folders), workdir)
    logs = [''.join(log.read_text() for log in folder.glob('slurm-*.log')) for folder in folders]
    assert ['resuming at step' in log for log in logs] == [False, False, True], logs[2]
    assert (workdir / 'array.sh').read_text() == text
    assert launch(*words, '--list', command=SWEEP_COMMAND).count('done') == 3
    (folders[1] / 'done.json').unlink()
    launch(*words, '--slurm=--ntasks=1', command=SWEEP_COMMAND)
    wait_for((folders[1] / 'done.json').exists, folders[1])
    assert [len([*folder.glob('slurm-*.log')]) for folder in folders] == [1, 2, 1]


@pytest.mark.slow
def test_rejection_by_slurm_is_an_error(tmp_path, cluster):
    with pytest.raises(UserError, match='sbatch .* failed: .*invalid'):
        slurm.submit([(Job(tmp_path, f'{TINY}:pretrain', ()), ['--partition=none', '--nodes=2'])])
    with pytest.raises(UserError, match='which no eval command scores'):
        slurm.submit([(Job(tmp_path, f'{TINY}:pretrain', (), checkpoint=str(tmp_path)), [])])


def test_print_submits_nothing(tmp_path):
    folder = shlex.quote(str(tmp_path / 'run'))
    words = (f'--config={TINY}:pretrain', f'--workdir={tmp_path / "run"}', '--sbatch=--nodes=3', '--print')
    output = run_in_process(ROOT / 'launch/slurm.py', *words).stdout
    assert '#SBATCH --nodes=3' in output
    assert f'--workdir={folder}' in output
    assert not (tmp_path / 'run').exists()


def test_print_shows_the_array_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))  # without SLURM
    words = (f'--config={TINY}:classify', f'--workdir={tmp_path / "x"}', '--seeds=3', '--jobs=2')
    done = run_in_process('bert_jax.bin.sweep', *words, '--slurm=--gpus=1', '--print')
    assert done.returncode == 0, done.stderr
    assert f'#SBATCH --array=0-2%2\n#SBATCH --gpus=1\nfolders=({tmp_path}/x/baseline/seed0 ' in done.stdout
    assert (
        f'# {tmp_path}/x/baseline/seed0/slurm.sh, the script of the first of 3 runs\n#!/bin/bash\n'
        in done.stdout
    )
    assert f'--workdir={tmp_path}/x/baseline/seed0 ' in done.stdout
    assert not (tmp_path / 'x').exists()
