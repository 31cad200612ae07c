"""Tests of the benchmark."""

import json

import pytest

from bert_jax.benchmarks import pretraining
from bert_jax.core.errors import UserError
from tests.runs import run_command


def test_benchmark_times_a_step_and_its_parts(tmp_path):
    out = tmp_path / 'bench.json'
    done = run_command(
        'bert_jax.bin.bench', 'tiny', '--rounds=1', '--seconds=0.1', '--no_reference', f'--out={out}'
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
    assert 'tiny   32x128  bert_jax' in done.stdout
    assert 'tokens/s' in done.stdout


def test_unknown_size_raises():
    with pytest.raises(UserError, match=r"no size 'huge'. Choose from tiny, mini"):
        pretraining.compare(['huge'], 1, 0.1, include_reference=False)
