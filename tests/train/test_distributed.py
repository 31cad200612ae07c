"""Several processes train one model: as one does, through a stop and a death."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import bert_jax
from bert_jax.core import distributed
from bert_jax.core.errors import UserError
from tests.runs import ROOT, TINY, finetune, losses, pretrain, run_here


def start(processes, door, *words):
    """`processes` processes of one job, with the eight devices of a test between them."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{s.getsockname()[1]}'
    flags = f'--xla_force_host_platform_device_count={8 // processes} --xla_backend_optimization_level=0'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags}
    command = [sys.executable, '-m', f'bert_jax.bin.{door}', *map(str, words), f'--coordinator={address}']
    return [
        subprocess.Popen(
            [*command, f'--processes={processes}', f'--process={i}'],
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(processes)
    ]


def end(job, timeout=120):
    """Exit statuses and what was said."""
    said = [process.communicate(timeout=timeout) for process in job]
    return [process.returncode for process in job], said


def pretraining(processes, workdir, corpus, rows, *settings):
    data = f"--config.data.sources=('{corpus}',)", f'--config.data.rows={rows}'
    more = [f'--config.{setting}' for setting in settings]
    return start(processes, 'train', f'--config={TINY}:pretrain', f'--workdir={workdir}', *data, *more)


def wait_for(step, workdir, job):
    while not (workdir / 'metrics.jsonl').exists() or len(losses(workdir)) < step:
        time.sleep(0.05)
        for process in job:
            assert process.poll() is None, process.communicate()


# Steps are too quick for a signal to find them; so much evaluation slows them down.
SLOW = 'train.eval_every=1'


def assert_close(a, b):
    """Metrics of training."""
    a, b = ([line for line in lines if 'loss' in line] for lines in (a, b))
    assert len(a) == len(b) > 0
    for ours, theirs in zip(a, b, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            np.testing.assert_allclose(value, theirs[key], rtol=2e-5, atol=1e-6, err_msg=key)


def test_two_processes_stopped_by_one_signal_and_resumed_by_four_do_what_one_does(
    tmp_path, corpus, rows, pretrained, labelled
):
    job = pretraining(2, tmp_path, corpus, rows, 'mesh.strategy=fsdp', SLOW)
    wait_for(4, tmp_path, job)
    job[1].send_signal(signal.SIGTERM)
    statuses, said = end(job)
    assert statuses == [os.EX_TEMPFAIL] * 2, said
    assert losses(tmp_path)[-1]['step'] < 20
    assert 'step' not in said[1][1]  # the lead alone reports
    statuses, said = end(pretraining(4, tmp_path, corpus, rows, SLOW))
    assert statuses == [0] * 4, said
    assert 'resuming at step' in said[0][1]
    assert bert_jax.load(tmp_path)[0].bert.config.width == 32
    assert finetune(tmp_path / 'tuned', tmp_path, labelled, 'train.steps=3') == 0
    assert_close(losses(tmp_path), losses(pretrained))


def test_a_killed_process_ends_the_job_by_its_name_and_what_was_saved_goes_on(
    tmp_path, corpus, rows, pretrained
):
    job = pretraining(2, tmp_path, corpus, rows, SLOW)
    wait_for(7, tmp_path, job)
    job[1].kill()
    since = time.monotonic()
    statuses, said = end(job)
    assert time.monotonic() - since < 60
    assert statuses[0] not in (0, os.EX_TEMPFAIL)
    assert 'Traceback' not in said[0][1], said[0][1]
    assert 'unhealthy (stopped sending heartbeats):\n1\n' in said[0][1]
    assert pretrain(tmp_path, corpus, rows) == 0
    assert_close(losses(tmp_path), losses(pretrained))


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('UNKNOWN: Gloo all-reduce failed: Connection reset by peer', 'another process died'),
        ('UNAVAILABLE: unhealthy (stopped sending heartbeats):\n1\nThe tasks', 'process 1 died'),
        ('DEADLINE_EXCEEDED: Barrier timed out', 'another process died'),
        ('INVALID_ARGUMENT: shapes', ''),
    ],
)
def test_what_the_death_of_another_process_makes_is_one_sentence(text, said, monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    error = RuntimeError('saving failed')
    error.__cause__ = jax.errors.JaxRuntimeError(text)
    sentence = distributed._lost(error)
    assert sentence.startswith(said)
    assert bool(sentence) == bool(said)
    assert '\n' not in sentence


def test_fine_tuning_and_evaluation_of_two_processes_are_those_of_one(tmp_path, pretrained, labelled):
    settings = ('train.steps=4', 'train.bins=3')
    assert finetune(tmp_path / 'run', pretrained, labelled, *settings) == 0
    # All rows on both processes, since nothing but the unused axis is split.
    own = ('mesh.data=1', 'mesh.tensor=8', f'init.checkpoint={pretrained}', *settings)
    words: tuple[str, ...] = (f'--config={TINY}:classify', f'--config.data.source={labelled}')
    more = [f'--config.{setting}' for setting in own]
    statuses, said = end(start(2, 'train', *words, f'--workdir={tmp_path / "both"}', *more))
    assert statuses == [0, 0], said
    assert_close(losses(tmp_path / 'both'), losses(tmp_path / 'run'))
    words = (*words, f'--checkpoint={tmp_path / "run"}')
    assert run_here('bert_jax.bin.eval_classify', *words, f'--out={tmp_path / "one.json"}').returncode == 0
    statuses, said = end(start(2, 'eval_classify', *words, f'--out={tmp_path / "two.json"}'))
    assert statuses == [0, 0], said
    assert '21 rows' in said[0][0]
    assert 'rows' not in said[1][0]
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert one['rows'] == two['rows'] == 21
    assert_close([one['scores']], [two['scores']])


def test_an_error_of_all_is_said_by_each_and_ends_the_job(tmp_path, corpus, rows):
    statuses, said = end(pretraining(2, tmp_path, corpus, rows, 'train.batch_size=15'))
    assert statuses == [1, 1], said
    for i, (_, text) in enumerate(said):
        assert f'error in process {i}: train.batch_size=15 does not divide by 8' in text
        assert 'stack trace' not in text


@pytest.mark.parametrize('given', [('host:1', 0, 0), ('', 2, 0), ('host:1', 2, 2), ('host', 2, 0)])
def test_half_an_address_is_refused(given):
    with pytest.raises(UserError, match='belong together'), distributed.job(*given):
        pass
