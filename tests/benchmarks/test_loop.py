"""Tests of the comparison of the training loop with the bare step."""

import json
import subprocess

import pytest

from bert_jax.benchmarks import loop, throughput
from bert_jax.core.errors import UserError
from tests.runs import run_command

GPU = throughput.Device('gpu', 'test', 1e12, {})
BARE = {'size': 'tiny', 'length': 32, 'rows': 4, 'model': {}, 'device': 'test', 'step_seconds': 0.08, 'tokens_per_second': 1}  # fmt: skip


def test_share_is_the_bare_step_over_the_median_of_the_loop(tmp_path, monkeypatch, capsys):
    def train(case, steps, text, workdir, *_):
        assert len(text.read_text().split()) == 4 * 4 * 32
        workdir.mkdir()
        speeds = [1, 1, 4 * 32 / 0.1, 4 * 32 / 0.1, 4 * 32 / 0.5]  # the first two lines do not count
        lines = [{'step': 10 * i, 'tokens_per_second': speed} for i, speed in enumerate(speeds, 1)]
        lines.append({'step': 50, 'eval/loss': 1.0})
        (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
        starts = [{'began': 0, 'time': 1, 'from': 0, 'step': steps, 'overhead': {'checkpoints': 1.5}}]
        (workdir / 'progress.json').write_text(json.dumps({'total': steps, 'starts': starts}))

    monkeypatch.setattr(throughput, 'time_case', lambda *_: BARE)
    monkeypatch.setattr(loop, '_train', train)
    out = tmp_path / 'results.jsonl'
    result = loop.measure(GPU, 'tiny', 32, out, rows=4, seconds=8)
    assert result['share'] == pytest.approx(0.8)
    assert result['steps'] == 120
    assert json.loads(out.read_text()) == result
    assert throughput.read_results(out) == []  # the table of the throughput leaves it out
    assert 'share 80.0%; saving a checkpoint took 1.5 s' in capsys.readouterr().out


def test_failures_say_what_to_do(monkeypatch):
    with pytest.raises(UserError, match='single device, but JAX finds 8'):
        loop.measure(GPU._replace(num_devices=8), 'tiny', 32, None)
    monkeypatch.setattr(throughput, 'time_case', lambda *_: {'error': 'RESOURCE_EXHAUSTED'})
    with pytest.raises(UserError, match=r'bare step failed \(RESOURCE_EXHAUSTED\). Choose a smaller --batch'):
        loop.measure(GPU, 'tiny', 32, None, rows=4)
    monkeypatch.setattr(throughput, 'time_case', lambda *_: BARE)
    failed = subprocess.CompletedProcess([], 1, '', 'loading\nerror: no disk\n')
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: failed)
    with pytest.raises(UserError, match=r'The training failed \(error: no disk\). Correct the cause'):
        loop.measure(GPU, 'tiny', 32, None, rows=4)


@pytest.mark.slow
def test_command_trains_on_full_rows(tmp_path, monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '')  # of which one asks for eight devices
    out = tmp_path / 'results.jsonl'
    flags = ('--device=cpu', '--lengths=32', '--batch=4', '--seconds=1')
    run_command('bert_jax.bin.bench', 'tiny', '--loop', *flags, f'--out={out}')
    result = json.loads(out.read_text())
    assert 0.3 < result['share'] < 2
    assert {'data', 'checkpoints', 'compilation'} <= {*result['overhead']}
