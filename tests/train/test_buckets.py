"""A working directory in a bucket of a real S3 server on this machine. Needs `pip install "moto[server]" s3fs`."""

import logging
import os
import re
import shutil
import subprocess
import sys

import pytest

from bert_jax.core import buckets, paths
from bert_jax.experiments import status
from bert_jax.train import checkpoint, orbax_s3
from tests.runs import MANY_CHECKPOINTS, ROOT, TINY, finetune, metric_lines, pretrain, run_in_process

KILL_IN_SAVE = """
import os, signal
from orbax.checkpoint._src.path import atomicity
commit = atomicity.CommitFileTemporaryPath.finalize
async def finalize(self):
    if self.get_final().name == '18':
        os.kill(os.getpid(), signal.SIGKILL)
    await commit(self)
atomicity.CommitFileTemporaryPath.finalize = finalize
"""


def test_specification_of_a_folder_for_tensorstore(monkeypatch):
    for name in [name for name in os.environ if name.startswith('AWS_')]:
        monkeypatch.delenv(name)
    assert orbax_s3._s3_spec('s3:/bucket/a/b') == {'driver': 's3', 'bucket': 'bucket', 'path': 'a/b'}
    monkeypatch.setenv('AWS_DEFAULT_REGION', 'eu-central-1')
    assert orbax_s3._s3_spec('s3:/bucket/a')['aws_region'] == 'eu-central-1'
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://localhost:9000')
    assert orbax_s3._s3_spec('s3:/bucket/a')['endpoint'] == 'http://localhost:9000'


@pytest.fixture
def stored(bucket, pretrained, tmp_path):
    """Path of a copy of the run `pretrained` in a bucket."""
    shutil.copytree(pretrained, tmp_path / 'run')
    buckets.upload_folder(tmp_path / 'run', bucket / 'runs/a')
    return bucket / 'runs/a'


def test_checkpoints_in_a_bucket_are_listed_once_they_are_complete(stored):
    assert [step.name for step in checkpoint.list_saved(stored)] == ['15', '18', '20']
    for step in ('15', '20'):
        (stored / 'checkpoints' / step / 'commit_success.txt').unlink()
    assert [step.name for step in checkpoint.list_saved(stored)] == ['18']
    assert checkpoint.list_steps(stored / 'checkpoints/20') == []
    assert checkpoint.read_metadata(stored)[1]['step'] == 18
    checkpoint.set_aside(stored / 'checkpoints/18', 'damaged-18')
    assert checkpoint.list_saved(stored) == []
    assert (stored / 'checkpoints/damaged-18/metadata/metadata').exists()


def test_status_and_report_read_a_bucket(stored, bucket, pretrained):
    lines, local = status.describe(stored), status.describe(pretrained)
    assert lines[0] == 's3://bucket/runs/a: done, step 20 of 20 (100%)'
    assert lines[1:3] == local[1:3]
    assert lines[-2] == '  checkpoint of step 20, 0 seconds ago'
    assert status.table(bucket / 'runs')[1][:3] == ['a', 'done', '20/20']
    done = run_in_process('bert_jax.bin.report', bucket / 'runs', f'--out={bucket / "report.html"}')
    assert done.returncode == 0, done.stderr
    assert 'Pretraining: runs/a' in (bucket / 'report.html').read_text()


def test_rows_are_prepared_in_a_bucket(bucket, tmp_path, corpus, monkeypatch):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path / 'first machine'))
    arguments = [f'--config={TINY}:pretrain', f'--config.data.sources=({str(corpus)!r},)']
    done = run_in_process('bert_jax.bin.prepare', *arguments, '--rows=s3://bucket/rows')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('s3://bucket/rows/length32: 97 train rows')
    tokens, padding = re.search(
        r'([\d,]+) train tokens.*; (.*)% of the train rows is padding\n', done.stdout
    ).groups()
    assert float(padding) == round(100 - 100 * int(tokens.replace(',', '')) / (97 * 32), 1)
    files = [str(p.relative_to(bucket / 'rows')) for p in paths.find_files(bucket / 'rows', '*')]
    assert {'length32/manifest.json', 'length32/train-00000.array_record', 'tokenizer.json'} < {*files}
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path / 'second machine'))
    again = run_in_process('bert_jax.bin.prepare', *arguments, '--rows=s3://bucket/rows')
    assert again.stdout == done.stdout
    assert 'prepared 129 rows' in done.stderr
    assert 'prepared 129 rows' not in again.stderr
    arguments.append('--config.data.validation_fraction=0.5')
    done = run_in_process('bert_jax.bin.prepare', *arguments, '--rows=s3://bucket/rows')
    assert done.returncode == 1
    assert "error: The rows in 's3://bucket/rows/length32' were prepared with a different" in done.stderr


@pytest.fixture(scope='module')
def s3():
    """Path s3://bucket on an S3 server of this process."""
    pytest.importorskip('s3fs')
    server = pytest.importorskip('moto.server').ThreadedMotoServer(
        ip_address='127.0.0.1', port=0, verbose=False
    )
    logging.getLogger('werkzeug').setLevel(logging.ERROR)
    server.start()
    url = 'http://{}:{}'.format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ('AWS_ACCESS_KEY_ID', 'test'),
            ('AWS_SECRET_ACCESS_KEY', 'test'),
            ('AWS_DEFAULT_REGION', 'us-east-1'),
            ('AWS_ENDPOINT_URL', url),
        ):
            patch.setenv(name, value)
        path = paths.make_path('s3://bucket')
        buckets.file_system(path).mkdir('bucket')
        yield path
    server.stop()


@pytest.mark.slow
def test_run_in_a_bucket_survives_a_kill_in_the_middle_of_a_save(
    s3, tmp_path, corpus, pretrained, monkeypatch
):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    words = [f'data.sources=({str(corpus)!r},)', *MANY_CHECKPOINTS]
    arguments = [
        f'--config={TINY}:pretrain',
        f'--workdir={s3 / "run"}',
        *(f'--config.{word}' for word in words),
    ]
    code = f'{KILL_IN_SAVE}\nimport sys, runpy; sys.argv = {["train", *arguments]!r}\n'
    code += 'runpy.run_module("bert_jax.bin.train", run_name="__main__")'
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    killed = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert (s3 / 'run/checkpoints/18/metadata/metadata').exists()
    assert checkpoint.list_saved(s3 / 'run')[-1].name == '15'

    assert pretrain(s3 / 'run', corpus, '', *MANY_CHECKPOINTS) == 0
    assert [step.name for step in checkpoint.list_saved(s3 / 'run')] == ['15', '18', '20']
    assert metric_lines(s3 / 'run') == metric_lines(pretrained)


@pytest.mark.slow
def test_fine_tuning_and_evaluation_read_and_write_a_bucket(s3, tmp_path, corpus, labeled, monkeypatch):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    done = run_in_process(
        'bert_jax.bin.prepare',
        f'--config={TINY}:pretrain',
        f'--config.data.sources=({str(corpus)!r},)',
        f'--rows={s3 / "rows"}',
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('s3://bucket/rows/length32: ')
    assert pretrain(s3 / 'first', corpus, s3 / 'rows') == 0
    assert not (s3 / 'first/rows').exists()
    assert finetune(s3 / 'second', s3 / 'first', labeled) == 0
    done = run_in_process(
        'bert_jax.bin.eval_classify',
        f'--config={TINY}:classify',
        f'--config.data.source={labeled}',
        f'--checkpoint={s3 / "second"}',
        f'--out={s3 / "second/scores.json"}',
        '--watch',
    )
    assert done.returncode == 0, done.stderr
    assert (s3 / 'second/scores.json').exists()
