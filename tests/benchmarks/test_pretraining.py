"""The bench: it times the real step, and says so."""

import json

import pytest

from bert_jax.benchmarks import pretraining
from bert_jax.core.errors import UserError
from tests.runs import run_door


def test_the_bench_times_a_step_and_its_parts(tmp_path):
    out = tmp_path / 'bench.json'
    done = run_door(
        'bert_jax.bin.bench', 'tiny', '--rounds=1', '--seconds=0.1', '--no_reference', f'--out={out}'
    )
    figures = json.loads(out.read_text())['tiny']['bert_jax']
    assert 0 < figures['forward'] < figures['seconds']
    assert 0 < figures['update'] < figures['seconds']
    words, width, mlp = 30_522, 128, 512
    tokens, predicted = 32 * 128, 32 * 20
    layers = (
        tokens * 2 * (4 * width**2 + 2 * width * mlp + 2 * 128 * width)
    )  # one whole layer, and more of the last
    assert (
        3 * (layers + 2 * predicted * words * width)
        < figures['flops']
        < 3 * (2 * layers + 2.1 * predicted * words * width)
    )
    assert 'tiny   32x128  bert_jax' in done.stdout
    assert 'tokens/s' in done.stdout


def test_an_unknown_size_is_named():
    with pytest.raises(UserError, match=r"no size 'huge': choose from tiny, mini"):
        pretraining.compare(['huge'], 1, 0.1, reference=False)
