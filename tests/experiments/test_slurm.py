"""Jobs on SLURM: their scripts, and on a SLURM of two nodes where one can be had."""

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
from bert_jax.experiments import slurm
from bert_jax.experiments.jobs import Job
from tests.runs import ROOT, TINY, losses
from tests.train.test_cluster import SLOW, assert_close


def test_arguments_arrive_unharmed(tmp_path):
    said = 'it\'s "here" $HOME `id` \\ ok'
    place = tmp_path / 'a b'
    text = slurm.script(Job(place, f'{TINY}:pretrain', (f'data.rows={said}',)), ['--comment=two words'])
    assert '#SBATCH "--comment=two words"' in text
    place.mkdir()
    tools = tmp_path / 'bin'
    tools.mkdir()
    (tools / 'srun').write_text(f'#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv[1:]))\n')
    (tools / 'srun').chmod(0o755)
    env = {**os.environ, 'PATH': f'{tools}:{os.environ["PATH"]}'}
    done = subprocess.run(['bash', '-c', text], env=env, capture_output=True, text=True, check=True)
    assert f'--config.data.rows={said}' in json.loads(done.stdout)
    assert json.loads((place / 'done.json').read_text())['settings'] == [f'data.rows={said}']


@pytest.mark.parametrize('name', ['a\nb', 'a\\b'])
def test_a_folder_that_sbatch_cannot_read_is_refused(name, tmp_path):
    with pytest.raises(UserError, match='without backslash and line break'):
        slurm.script(Job(tmp_path / name, f'{TINY}:pretrain', ()))


@pytest.mark.parametrize(
    ('flag', 'command'),
    [
        ('--sbatch', ('launch/slurm.py', '--config=configs/quickstart.py:pretrain', '--print')),
        (
            '--eval_sbatch',
            ('launch/slurm.py', '--config=configs/quickstart.py:pretrain', '--print', '--eval'),
        ),
        ('--slurm', ('launch/sweep.py', '--config=configs/finetune/sst2.py')),
        ('--slurm', ('-m', 'bert_jax.bin.table', '--config=configs/tables/bert_table5.py:mini')),
    ],
)
def test_an_open_quotation_is_one_sentence(flag, command, tmp_path):
    words = (*command, f'--workdir={tmp_path}', f"{flag}=--comment='x")
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(f'error: {flag}="--comment=')
    assert said.endswith('mend its quotes.')
    assert not [*tmp_path.iterdir()]


def test_without_slurm_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match='There is no squeue here'):
        slurm.submit([])


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """A SLURM of two nodes."""
    if not shutil.which('slurmctld') or os.geteuid():
        pytest.skip('needs root and: apt install slurmctld slurmd slurm-client munge')
    folder = tmp_path_factory.mktemp('slurm')
    script = str(ROOT / 'tests' / 'slurm_cluster.sh')
    subprocess.run(['bash', script, 'up', folder], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SLURM_CONF', str(folder / 'slurm.conf'))
        patch.setenv(
            'XLA_FLAGS', '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
        )
        yield
        subprocess.run(['bash', script, 'down', folder], check=True)


def launch(*words, script='slurm.py'):
    command = [sys.executable, str(ROOT / 'launch' / script), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def wait_for(condition, log: pathlib.Path, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, [file.read_text() for file in log.glob('slurm-*.log')]
        time.sleep(0.2)


def test_a_training_on_two_nodes_is_requeued_when_it_is_stopped_and_goes_on(
    tmp_path, cluster, corpus, rows, pretrained
):
    words = [f'--config={TINY}:pretrain', f'--workdir={tmp_path}', f"--config.data.sources=('{corpus}',)"]
    words += [f'--config.data.rows={rows}', f'--config.{SLOW}', '--sbatch=--nodes=2 --ntasks-per-node=1']
    (number,) = re.findall(r'job (\d+)', launch(*words))
    assert f'job {number}' in launch(*words)  # it is in the queue, and not submitted again
    metrics = tmp_path / 'metrics.jsonl'
    wait_for(lambda: metrics.exists() and len(losses(tmp_path)) >= 4, tmp_path)
    subprocess.run(['scancel', '--signal=TERM', number], check=True)
    wait_for((tmp_path / 'done.json').exists, tmp_path)
    assert_close(losses(tmp_path), losses(pretrained))
    log = (tmp_path / f'slurm-{number}.log').read_text()
    assert re.search(r'stopped at step \d+, saved', log)
    assert 'resuming at step' in log
    assert 'done before' in launch(*words)


def test_an_evaluation_follows_a_training(tmp_path, cluster, pretrained, labelled):
    words = [f'--config={TINY}:classify', f'--workdir={tmp_path}', f'--config.data.source={labelled}']
    words += [f'--config.init.checkpoint={pretrained}', '--config.train.steps=5']
    said = launch(*words, '--eval')
    assert len(re.findall(r'job \d+', said)) == 2
    wait_for((tmp_path / 'eval' / 'done.json').exists, tmp_path / 'eval')
    scores = json.loads((tmp_path / 'eval' / 'scores.json').read_text())
    assert scores['step'] == 5
    assert scores['scores']['loss'] == pytest.approx(losses(tmp_path)[-1]['eval/loss'], rel=1e-5)


def test_a_cancelled_job_is_not_begun_again(tmp_path, cluster, corpus, rows):
    words = [f'--config={TINY}:pretrain', f'--workdir={tmp_path}', f"--config.data.sources=('{corpus}',)"]
    (number,) = re.findall(
        r'job (\d+)', launch(*words, f'--config.data.rows={rows}', '--config.train.steps=5000')
    )
    wait_for((tmp_path / 'metrics.jsonl').exists, tmp_path)
    subprocess.run(['scancel', number], check=True)
    squeue = ['squeue', '--noheader', '--states=all', f'--jobs={number}', '--format=%T']
    wait_for(lambda: 'CANCELLED' in subprocess.run(squeue, capture_output=True, text=True).stdout, tmp_path)
    time.sleep(6)  # a job that is requeued would be begun by now
    assert 'CANCELLED' in subprocess.run(squeue, capture_output=True, text=True).stdout
    assert not (tmp_path / 'done.json').exists()


SWEEP = """
import runpy

def get_config():
    return runpy.run_path({tiny!r})['get_config']('classify')

def sweep(add):
    for seed in range(3):
        add({{'train.seed': seed}})
"""


def test_a_sweep_is_an_array_of_which_what_is_missing_is_submitted(tmp_path, cluster, pretrained, labelled):
    config, workdir = tmp_path / 'config.py', tmp_path / 'a b'
    config.write_text(SWEEP.format(tiny=str(TINY)))
    words = [f'--config={config}', f'--workdir={workdir}', f'--config.data.source={labelled}']
    words += [
        f'--config.init.checkpoint={pretrained}',
        '--config.train.steps=100',
        f'--config.{SLOW}',
        '--jobs=2',
    ]
    launch(*words, '--slurm=--ntasks=1', script='sweep.py')
    text = (workdir / 'array.sh').read_text()
    assert '--array=0-2%2' in text
    places = [workdir / f'seed={seed}' for seed in range(3)]
    launch(*words, '--slurm=--ntasks=1', script='sweep.py')  # they are in the queue, and not submitted again
    with pytest.raises(subprocess.CalledProcessError) as refused:
        launch(*words, '--config.train.log_every=7', '--slurm=--ntasks=1', script='sweep.py')
    assert 'is in the queue with other settings' in refused.value.stderr
    wait_for(lambda: (places[2] / 'metrics.jsonl').exists() and len(losses(places[2])) >= 4, workdir)
    last = (places[2] / 'slurm.id').read_text().strip()  # its other number is that of the array
    subprocess.run(['scancel', '--signal=TERM', last], check=True)
    wait_for(lambda: all((place / 'done.json').exists() for place in places), workdir)
    logs = [''.join(log.read_text() for log in place.glob('slurm-*.log')) for place in places]
    assert ['resuming at step' in log for log in logs] == [False, False, True], logs[2]
    assert (workdir / 'array.sh').read_text() == text
    assert launch(*words, '--list', script='sweep.py').count('done') == 3
    (places[1] / 'done.json').unlink()
    launch(*words, '--slurm=--ntasks=1', script='sweep.py')
    wait_for((places[1] / 'done.json').exists, places[1])
    assert [len([*place.glob('slurm-*.log')]) for place in places] == [1, 2, 1]


def test_a_refusal_of_slurm_is_one_sentence(tmp_path, cluster):
    with pytest.raises(UserError, match='sbatch .* says: .*invalid'):
        slurm.submit([(Job(tmp_path, f'{TINY}:pretrain', ()), ['--partition=none', '--nodes=2'])])
    with pytest.raises(UserError, match='which no eval binary scores'):
        slurm.submit([(Job(tmp_path, f'{TINY}:pretrain', (), scores=str(tmp_path)), [])])


def test_what_is_asked_for_is_printed_and_not_submitted(tmp_path):
    place = shlex.quote(str(tmp_path / 'run'))
    said = launch(
        f'--config={TINY}:pretrain', f'--workdir={tmp_path / "run"}', '--sbatch=--nodes=3', '--print'
    )
    assert '#SBATCH --nodes=3' in said
    assert f'--workdir={place}' in said
    assert not (tmp_path / 'run').exists()
