"""Tests of the benchmark."""

import json
import subprocess

import pytest

from bert_jax.benchmarks import comparison, embedding, embedding_training, finetuning
from bert_jax.bin import bench
from bert_jax.core.errors import UserError
from tests.runs import run_command, run_in_process


@pytest.mark.slow
def test_benchmark_times_a_step_and_its_parts(tmp_path):
    out = tmp_path / 'bench.json'
    done = run_command(
        'bert_jax.bin.bench', 'tiny', '--rounds=1', '--seconds=0.1', '--programs=bert_jax', f'--out={out}'
    )
    result = json.loads(out.read_text())['tiny']['bert_jax']
    assert 0 < result['forward'] < result['seconds']
    assert 0 < result['update'] < result['seconds']
    vocab_size, width, mlp_width = 30_522, 128, 512
    tokens, predicted = 32 * 128, 32 * 20
    # The first layer; the last layer computes less.
    layer = tokens * 2 * (4 * width**2 + 2 * width * mlp_width + 2 * 128 * width)
    assert (
        3 * (layer + 2 * predicted * vocab_size * width)
        < result['flops']
        < 3 * (2 * layer + 2.1 * predicted * vocab_size * width)
    )
    assert 'tiny   bert_jax' in done.stdout
    assert 'tokens/s' in done.stdout


def test_all_results_are_medians_over_the_rounds(monkeypatch):
    names = ('tokens_per_second', 'seconds', 'forward', 'backward', 'update', 'flops', 'peak_flops')
    rounds = iter([(10, 0.3, 0.1, 0.15, 0.05, 1e9, 1e11), *[(15, 0.2, 0.06, 0.11, 0.03, 1e9, 1e11)] * 2])
    monkeypatch.setattr(
        comparison, '_time_in_process', lambda *_: dict(zip(names, next(rounds), strict=True))
    )
    ours = comparison.compare(['tiny'], 3, 1, ['bert_jax'])['tiny']['bert_jax']
    assert ours == {'tokens_per_second': 15, 'seconds': 0.2, 'forward': 0.06, 'backward': 0.11, 'update': 0.03, 'flops': 1e9,
                    'peak_flops': 1e11, 'runs': [10, 15, 15]}  # fmt: skip


def test_texts_per_second_of_embeddings(monkeypatch):
    texts = [f'the number {i} ' * (1 + i % 30) for i in range(40)]
    monkeypatch.setattr(embedding, 'make_texts', lambda: texts)
    encoded = []
    monkeypatch.setattr(embedding, 'runs_per_second', lambda run, seconds: encoded.append(run(0)) or 0.5)
    assert embedding.time_bert_jax('tiny', 0) == {'texts_per_second': embedding.TEXTS / 2}
    assert encoded[0].shape == (40, 128)


def test_texts_per_second_of_training_embeddings(monkeypatch):
    count = 2 * embedding_training.BATCH
    pairs = [(f'the number {i}', 'is followed ' * (1 + i % 30)) for i in range(count)]
    monkeypatch.setattr(embedding_training, 'make_pairs', lambda: pairs)
    monkeypatch.setattr(embedding_training, 'PAIRS', count)
    monkeypatch.setattr(finetuning, 'runs_per_second', lambda run, seconds: run(0) or 0.5)
    assert embedding_training.time_bert_jax('tiny', 0) == {'texts_per_second': count}


def test_unknown_size_raises():
    with pytest.raises(UserError, match=r"no size 'huge'. Choose from tiny, mini"):
        comparison.compare(['huge'], 1, 0.1, ['bert_jax'])


@pytest.mark.parametrize(
    ('status', 'stderr', 'reason'),
    [
        (-9, '', 'killed by SIGKILL'),
        (-9, 'a warning\n', 'killed by SIGKILL'),
        (3, '', 'exit status 3'),
        (1, 'Traceback\nMemoryError: too large\n', 'MemoryError: too large'),
    ],
)
def test_reason_of_a_failed_timing(monkeypatch, status, stderr, reason):
    done = subprocess.CompletedProcess([], status, '', stderr)
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: done)
    with pytest.raises(UserError, match=rf'Timing transformers at size large failed \({reason}\)'):
        comparison._time_in_process('pretraining', 'transformers', 'large', 0.1)


def test_bfloat16_is_refused_where_it_is_not_timed():
    with pytest.raises(UserError, match='not for --generation'):
        bench._choose_programs(['bert_jax', 'tuned_bfloat16'], 'generation', 'cpu')
    assert bench._choose_programs(['tuned_bfloat16'], 'finetuning', 'cpu') == [comparison.BFLOAT16]


@pytest.mark.parametrize('flag', ['--rounds=0', '--seconds=nan', '--batch=-1', '--dropout=-0.1', '--limit=0'])
def test_flags_out_of_range_are_errors(flag):
    done = run_in_process('bert_jax.bin.bench', flag)
    assert done.returncode == 2
    assert f'{flag.partition("=")[0]}=' in done.stderr
    assert 'must be at least' in done.stderr
    assert 'device' not in done.stdout
