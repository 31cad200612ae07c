"""Tests of the processes of the benchmarks."""

import subprocess

import pytest

from bert_jax.benchmarks import processes

OUT_OF_MEMORY = 'jaxlib._jax.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes'


@pytest.mark.parametrize(
    ('status', 'stdout', 'stderr', 'reason', 'is_out_of_memory'),
    [
        (1, '', f'Traceback\n{OUT_OF_MEMORY}\n', OUT_OF_MEMORY, True),
        (1, '{"error": "torch.OutOfMemoryError: CUDA out of memory"}\n', 'Traceback\n---', 'torch.OutOfMemoryError: CUDA out of memory', True),
        (1, '{"error": "KeyError: x"}\n', 'out of memory? no\nKeyError', 'KeyError: x', False),
        (-9, '', '', 'killed by SIGKILL', True),
        (-11, '', 'a warning', 'killed by SIGSEGV', False),
    ],
)  # fmt: skip
def test_reason_of_a_failure(monkeypatch, status, stdout, stderr, reason, is_out_of_memory):
    done = subprocess.CompletedProcess([], status, stdout, stderr)
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: done)
    with pytest.raises(processes.Failure) as failure:
        processes.call('module', 'function', {})
    assert failure.value.reason == reason
    assert failure.value.is_out_of_memory == is_out_of_memory
    assert failure.value.results == []


def test_results_before_a_failure_are_kept(tmp_path, monkeypatch):
    module = tmp_path / 'bert_jax_failing.py'
    module.write_text(
        'def steps(n):\n    for i in range(n):\n        yield {"step": i}\n    raise ValueError(f"at {n}")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(processes.Failure, match='ValueError: at 2') as failure:
        processes.call('bert_jax_failing', 'steps', {'n': 2})
    assert failure.value.results == [{'step': 0}, {'step': 1}]


def test_results_before_the_limit_are_kept(monkeypatch):
    def run(*_, **__):
        raise subprocess.TimeoutExpired([], 5, b'{"step": 0}\n{"st', b'compiling')

    monkeypatch.setattr(subprocess, 'run', run)
    with pytest.raises(processes.Failure, match='took longer than 5 seconds') as failure:
        processes.call('module', 'function', {}, limit=5)
    assert failure.value.results == [{'step': 0}]
    assert failure.value.output == 'compiling'
