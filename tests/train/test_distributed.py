"""Training with several processes equals training with one, also after a signal or the death of a process."""

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
from jax.errors import JaxRuntimeError

import bert_jax
from bert_jax.core import distributed
from bert_jax.core.errors import UserError
from tests.runs import MANY_CHECKPOINTS, ROOT, TINY, finetune, metric_lines, pretrain, run_in_process


def start(processes, command_name, *arguments):
    """Start a job of several processes that share the eight devices of a test."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{s.getsockname()[1]}'
    flags = os.environ['XLA_FLAGS'].replace('device_count=8', f'device_count={8 // processes}')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags}
    command = [
        sys.executable,
        '-m',
        f'bert_jax.bin.{command_name}',
        *map(str, arguments),
        f'--coordinator={address}',
    ]
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


def wait(job, timeout=120):
    """Wait for a job; return the exit statuses and (stdout, stderr) of its processes."""
    outputs = [process.communicate(timeout=timeout) for process in job]
    return [process.returncode for process in job], outputs


def start_pretraining(processes, workdir, corpus, rows, *settings):
    data = f"--config.data.sources=('{corpus}',)", f'--config.data.rows_dir={rows}'
    overrides = [f'--config.{setting}' for setting in settings]
    return start(processes, 'train', f'--config={TINY}:pretrain', f'--workdir={workdir}', *data, *overrides)


def wait_for(step, workdir, job):
    while not (workdir / 'metrics.jsonl').exists() or len(metric_lines(workdir)) < step:
        time.sleep(0.05)
        for process in job:
            assert process.poll() is None, process.communicate()


# Without the evaluations, the run would end before a signal arrives.
INTERRUPTIBLE = ('train.eval_every=1', *MANY_CHECKPOINTS)


def assert_close(a, b):
    """Check that two lists of metrics have the same training metrics, up to rounding."""
    a, b = ([line for line in lines if 'loss' in line] for lines in (a, b))
    assert len(a) == len(b) > 0
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for key, value in left.items():
            np.testing.assert_allclose(value, right[key], rtol=2e-5, atol=1e-6, err_msg=key)


@pytest.mark.slow
def test_two_processes_stopped_by_a_signal_and_resumed_by_four_equal_one_process(
    tmp_path, corpus, rows, pretrained, labeled
):
    job = start_pretraining(2, tmp_path, corpus, rows, 'mesh.strategy=fsdp', *INTERRUPTIBLE)
    wait_for(4, tmp_path, job)
    job[1].send_signal(signal.SIGTERM)
    statuses, outputs = wait(job)
    assert statuses == [os.EX_TEMPFAIL] * 2, outputs
    assert metric_lines(tmp_path)[-1]['step'] < 20
    assert 'step' not in outputs[1][1]  # only the lead process reports
    statuses, outputs = wait(start_pretraining(4, tmp_path, corpus, rows, *INTERRUPTIBLE))
    assert statuses == [0] * 4, outputs
    assert 'resuming at step' in outputs[0][1]
    assert bert_jax.load(tmp_path)[0].config.width == 32
    assert finetune(tmp_path / 'tuned', tmp_path, labeled, 'train.steps=3') == 0
    assert_close(metric_lines(tmp_path), metric_lines(pretrained))


@pytest.mark.slow
def test_killed_process_is_named_and_ends_the_job_which_can_be_resumed(tmp_path, corpus, rows, pretrained):
    job = start_pretraining(2, tmp_path, corpus, rows, *INTERRUPTIBLE)
    wait_for(7, tmp_path, job)
    job[1].kill()
    start_time = time.monotonic()
    statuses, outputs = wait(job)
    assert time.monotonic() - start_time < 60
    assert statuses[0] not in (0, os.EX_TEMPFAIL)
    assert 'Traceback' not in outputs[0][1], outputs[0][1]
    assert 'unhealthy (stopped sending heartbeats):\n1\n' in outputs[0][1]
    assert pretrain(tmp_path, corpus, rows, *MANY_CHECKPOINTS) == 0
    assert_close(metric_lines(tmp_path), metric_lines(pretrained))


@pytest.mark.parametrize(
    ('kind', 'text', 'start'),
    [
        (
            JaxRuntimeError,
            'UNKNOWN: Gloo all-reduce failed: Connection reset by peer',
            'another process died',
        ),
        (ValueError, 'UNKNOWN: Gloo AllGather failed: Connection reset by peer', 'another process died'),
        (JaxRuntimeError, 'UNAVAILABLE: unhealthy (stopped sending heartbeats):\n1\nThe', 'process 1 died'),
        (JaxRuntimeError, 'DEADLINE_EXCEEDED: Barrier timed out', 'another process died'),
        (JaxRuntimeError, 'INVALID_ARGUMENT: shapes', ''),
    ],
)
def test_error_caused_by_lost_process_is_one_line(kind, text, start, monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    error = RuntimeError('saving failed')
    error.__cause__ = kind(text)
    message = distributed._lost_process_message(error)
    assert message.startswith(start)
    assert bool(message) == bool(start)
    assert '\n' not in message


@pytest.mark.slow
@pytest.mark.parametrize('batches', ['train.length_buckets=3', 'train.packing=on'])
def test_fine_tuning_and_evaluation_with_two_processes_equal_one_process(
    tmp_path, pretrained, labeled, batches
):
    settings = ('train.steps=4', batches)
    assert finetune(tmp_path / 'run', pretrained, labeled, *settings) == 0
    # Both processes hold all rows: only the tensor axis is split, which this strategy does not use.
    two_process_settings = ('mesh.data=1', 'mesh.tensor=8', f'init.checkpoint={pretrained}', 'train.steps=4')
    arguments: tuple[str, ...] = (f'--config={TINY}:classify', f'--config.data.source={labeled}')
    arguments = (*arguments, f'--config.{batches}')
    overrides = [f'--config.{setting}' for setting in two_process_settings]
    statuses, outputs = wait(start(2, 'train', *arguments, f'--workdir={tmp_path / "both"}', *overrides))
    assert statuses == [0, 0], outputs
    assert_close(metric_lines(tmp_path / 'both'), metric_lines(tmp_path / 'run'))
    arguments = (*arguments, f'--checkpoint={tmp_path / "run"}')
    assert (
        run_in_process('bert_jax.bin.eval_classify', *arguments, f'--out={tmp_path / "one.json"}').returncode
        == 0
    )
    statuses, outputs = wait(start(2, 'eval_classify', *arguments, f'--out={tmp_path / "two.json"}'))
    assert statuses == [0, 0], outputs
    assert '21 rows' in outputs[0][0]
    assert 'rows' not in outputs[1][0]
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert one['rows'] == two['rows'] == 21
    assert_close([one['scores']], [two['scores']])


def test_error_in_all_processes_is_reported_by_each(tmp_path, corpus, rows):
    statuses, outputs = wait(start_pretraining(2, tmp_path, corpus, rows, 'train.batch_size=15'))
    assert statuses == [1, 1], outputs
    for i, (_, stderr) in enumerate(outputs):
        assert (
            f'error in process {i}: train.batch_size=15, the global batch size, is not divisible by 8'
            in stderr
        )
        assert 'stack trace' not in stderr


@pytest.mark.parametrize(
    ('environment', 'arguments', 'name'),
    [
        ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '1'}, (), 'process 1 of 4 (SLURM_NTASKS)'),
        (
            {'OMPI_COMM_WORLD_SIZE': '3', 'OMPI_COMM_WORLD_RANK': '0'},
            (),
            'process 0 of 3 (OMPI_COMM_WORLD_SIZE)',
        ),
        ({}, ('host:1', 2, 1), 'process 1 of 2'),
    ],
)
def test_process_that_waits_for_others_says_so(environment, arguments, name, monkeypatch, caplog):
    class Connected(Exception):
        pass

    def initialize(*_, **__):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # so that Ctrl-C works meanwhile
        end = time.monotonic() + 20
        while 'waiting' not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)
        raise Connected

    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(jax.distributed, 'initialize', initialize)
    monkeypatch.setattr(distributed, '_SILENCE_SECONDS', 0.1)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Connected), distributed.join_job(*arguments):
        pass
    assert signal.getsignal(signal.SIGINT) is handler
    (message,) = (r.getMessage() for r in caplog.records if r.levelname == 'WARNING')
    assert message.startswith(f'{name} has been waiting for ')
    assert message.endswith('Start them, or pass --processes=1 to run this process alone.')


def test_single_process_does_not_join_its_cluster(monkeypatch):
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *_, **__: 1 / 0)
    with distributed.join_job(processes=1):
        assert distributed.is_lead()


@pytest.mark.parametrize('arguments', [('host:1', 0, 0), ('', 2, 0), ('host:1', 2, 2), ('host', 2, 0)])
def test_incomplete_process_flags_are_rejected(arguments):
    with pytest.raises(UserError, match='belong together'), distributed.join_job(*arguments):
        pass
