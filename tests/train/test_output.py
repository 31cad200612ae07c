"""What a training run prints: in a log file, on a terminal, and with --verbose."""

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import types

import pytest

from bert_jax.core import metrics
from bert_jax.core.errors import UserError
from bert_jax.data import tfds_data
from bert_jax.train import checkpoint, loop
from bert_jax.train.checkpoint import Checkpointer
from tests.runs import ROOT, TINY, pretrain, run_in_process

SHORT = ('train.steps=4', 'train.eval_every=2', 'train.log_every=1', 'optim.warmup=0')
LINES = [
    r'training [\d,]+ parameters for 4 steps on mesh data=8 fsdp=1 tensor=1',
    r'evaluating on \d+ rows',
    r'compiling the train step',
    r'step 1/4  loss \d\.\d{4}  mlm_accuracy \d\.\d{4}',
    r'step [234]/4  loss .* left  .* tokens/s  MFU .*%',
    r'step [24]  evaluation  loss \d\.\d{4}  mlm_loss .*',
    r'checkpoint: /.*/run/checkpoints/4',
]


@pytest.fixture
def run_train(tmp_path, corpus, rows):
    def run(*flags):
        data = (f'--config.data.sources={corpus}', f'--config.data.rows_dir={rows}')
        overrides = (f'--config.{override}' for override in SHORT)
        arguments = (f'--config={TINY}:pretrain', f'--workdir={tmp_path / "run"}', *data, *overrides, *flags)
        return run_in_process('bert_jax.bin.train', *arguments)

    return run


def test_log_file_has_only_expected_lines(run_train):
    done = run_train()
    assert (done.returncode, done.stdout) == (0, '')
    lines = done.stderr.splitlines()
    for line in lines:
        assert any(re.fullmatch(pattern, line) for pattern in LINES), line
    for pattern in (*LINES[:4], 'step 4/4 .*', *LINES[5:]):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


def test_new_model_that_cannot_be_exported_is_named_at_the_start(tmp_path, corpus, rows, caplog):
    caplog.set_level(logging.INFO)
    pretrain(tmp_path, corpus, rows, *SHORT, 'train.steps=1', 'model.gated_mlp=true')
    expected = r'A model with model\.gated_mlp=True cannot be exported .* pretrain it with `--config\.model\.gated_mlp=false`\.'
    assert any(re.fullmatch(expected, record.getMessage()) for record in caplog.records)


def test_verbose_prints_table_of_parameters(run_train):
    done = run_train('--verbose')
    assert done.returncode == 0
    assert re.search(r'^  bert/token_embedding +\(\d+, 32\) +P', done.stderr, re.MULTILINE)
    assert re.search(r'^  bert/layers/blocks/\*/.* x2$', done.stderr, re.MULTILINE)


def test_stopped_run_says_so_after_saving_and_handles_signals_until_then(
    tmp_path, corpus, rows, monkeypatch, caplog
):
    unhandled, write, close = [], metrics.Writer.__call__, Checkpointer.close

    def write_and_stop(self, step, values):
        write(self, step, values)
        os.kill(os.getpid(), signal.SIGHUP)

    def close_late(self):
        os.kill(os.getpid(), signal.SIGTERM)  # a closing terminal, or a cluster, sends more than one signal
        assert 'saved' not in caplog.text
        close(self)

    monkeypatch.setattr(metrics.Writer, '__call__', write_and_stop)
    monkeypatch.setattr(Checkpointer, 'close', close_late)
    caplog.set_level(logging.INFO)
    numbers = (signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda n, _: unhandled.append(n)) for number in numbers}
    try:
        assert pretrain(tmp_path, corpus, rows, *SHORT, 'train.eval_every=0') == loop.EXIT_STOPPED
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert not unhandled
    (step,) = checkpoint.list_steps(tmp_path)
    assert f'stopped at step {step.name} and saved a checkpoint' in caplog.text


def test_ignored_signals_stay_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        with loop.record_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_checkpoint_that_cannot_be_saved_is_not_called_intact(tmp_path, corpus, rows, monkeypatch):
    def fail(self):
        raise UserError('The disk is gone.')

    monkeypatch.setattr(Checkpointer, 'close', fail)
    monkeypatch.setattr(Checkpointer, 'save', lambda *_: None)
    with pytest.raises(UserError, match='The disk is gone. No checkpoint was saved yet.'):
        pretrain(tmp_path, corpus, rows, *SHORT)
    assert json.loads((tmp_path / 'progress.json').read_text())['starts'][-1]['ended'] == 'failed'


def test_terminal_has_one_line_for_progress(tmp_path, corpus, rows):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with contextlib.redirect_stderr(Terminal()) as stream:
        assert pretrain(tmp_path, corpus, rows, *SHORT) == 0
    text = stream.getvalue()
    assert 'step 1/4' in text
    lines = [line.split('\r\033[K')[-1] for line in text.split('\n')]
    assert [line.split('  loss')[0] for line in lines] == ['step 2  evaluation', 'step 4  evaluation', '']


def test_preparing_a_data_set_prints_nothing(capsys):
    builder = types.SimpleNamespace(download_and_prepare=lambda: print('Unknown size'))
    tfds_data.prepare(builder, progress_bar=False)
    assert capsys.readouterr() == ('', '')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('limit', 'redirect', 'status', 'last_line'),
    [
        ('true', '2>&1 | head -1', 0, r'training .* parameters .*'),
        ('true', '2>&-', 0, ''),
        ('ulimit -n 32', '2>&1', 1, r'error: too many files are open .*'),
        ('ulimit -f 32', '2>&1', 1, r'error: a file is larger than the limit .*'),
    ],
)
def test_training_in_a_shell(limit, redirect, status, last_line, tmp_path, corpus, rows):
    data = f'--config.data.sources={corpus}', f'--config.data.rows_dir={rows}'
    overrides = (f'--config.{override}' for override in SHORT)
    words = (f'--config={TINY}:pretrain', f'--workdir={tmp_path / "run"}', *data, *overrides)
    script = f'{limit}; "$@" {redirect}; exit ${{PIPESTATUS[0]}}'
    command = ['bash', '-c', script, 'bash', sys.executable, '-m', 'bert_jax.bin.train', *words]
    environment = {**os.environ, 'BERT_JAX_CACHE': str(tmp_path), 'PYTHONDONTWRITEBYTECODE': '1'}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == status, done.stdout
    assert re.fullmatch(last_line, (done.stdout.splitlines() or [''])[-1])
    assert 'Traceback' not in done.stdout
    assert bool(checkpoint.list_steps(tmp_path / 'run')) == (status == 0)
