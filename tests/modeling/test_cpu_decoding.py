"""What generating a token is made of: the same as XLA's, with or without a compiler."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import attention, cpu_decoding
from tests.runs import ROOT


def operands(rows, k, n):
    keys = jax.random.split(jax.random.key(rows), 2)
    return jax.random.normal(keys[0], (rows, k)), jax.random.normal(keys[1], (k, n))


@pytest.fixture
def compiler():
    if not cpu_decoding._widest_strip():
        pytest.skip('needs a C++ compiler')


@cpu_decoding.matrices_read_often()
def product(*arguments, **options):
    return cpu_decoding.product(*arguments, **options)


def own(*arguments):
    """Whether a product of these is not XLA's."""
    return 'bert_jax_few_rows' in jax.jit(lambda x, w: product(x, w)).lower(*arguments).as_text()


@pytest.mark.parametrize('rows', [2, 3, 4, 5, 6, 7, 8, 9, 32])
@pytest.mark.parametrize(('k', 'n'), [(256, 768), (70, 992), (1001, 80), (5, 20_000), (4096, 64)])
def test_it_equals_a_product(rows, k, n, compiler):
    x, w = operands(rows, k, n)
    assert own(x, w)
    expected = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    np.testing.assert_allclose(product(x, w), expected, atol=5e-4)
    np.testing.assert_allclose(product(x, w.T, transposed=True), expected, atol=5e-4)


def test_it_can_be_mapped_and_gives_the_type_that_is_asked_for(compiler):
    x, w = operands(12, 256, 304)
    mapped = jax.vmap(product, (0, None))(x.reshape(3, 4, 256), w)
    np.testing.assert_allclose(mapped.reshape(12, 304), x @ w, atol=5e-4)
    assert product(x, w, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def repeated(x, w):
    return jax.lax.scan(lambda x, _: (jnp.sin(cpu_decoding.product(x, w)), None), x, None, 10)[0]


def until_small(x, w):
    return jax.lax.while_loop(lambda x: x.max() > 0.1, lambda x: jnp.sin(cpu_decoding.product(x, w)), x)


@pytest.mark.parametrize('loop', [repeated, until_small])
def test_a_matrix_is_laid_out_once_before_the_loop(loop, compiler):
    @jax.jit
    def run(x, w):
        with cpu_decoding.matrices_read_often():
            return loop(x, w)

    x, w = operands(8, 256, 256)
    functions = run.lower(x, w).compile().as_text().split('\n\n')
    (loop,) = (f for f in functions if 'bert_jax_few_rows' in f)
    assert 'bert_jax_strips' not in loop
    assert sum('bert_jax_strips' in f for f in functions) == 1


def test_others_are_left_to_xla(compiler):
    x, w = operands(8, 256, 304)
    assert own(x, w)
    assert 'bert_jax' not in jax.jit(cpu_decoding.product).lower(x, w).as_text()  # not in a loop
    assert not own(*operands(33, 256, 304))
    assert not own(*operands(1, 256, 304))
    assert not own(*operands(8, 256, 300))  # no strips divide it
    assert not own(x, w[:, :16])
    assert not own(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    with partitioning.use(partitioning.make(MeshConfig())):  # several devices
        assert not own(x, w)


def looking(batch, heads, kept, slots, size):
    """Queries, keys, values, and a mask with unseen slots in front, between and behind."""
    keys = jax.random.split(jax.random.key(slots), 4)
    q = jax.random.normal(keys[0], (batch, heads, 1, size))
    k, v = (jax.random.normal(key, (batch, kept, slots, size)) for key in keys[1:3])
    seen = jax.random.bernoulli(keys[3], 0.6, (batch, slots)).at[:, slots // 2].set(True)
    seen &= jnp.arange(slots) < slots - jnp.arange(batch)[:, None] - 1
    return q, k, v, seen[:, None, None]


@pytest.mark.parametrize('shape', [(8, 12, 12, 160, 64), (3, 4, 2, 33, 20), (2, 3, 1, 7, 5)])
def test_attention_to_a_cache_equals_that_of_xla(shape, compiler):
    q, k, v, mask = looking(*shape)
    np.testing.assert_allclose(cpu_decoding.attend(q, k, v, mask), attention.attend(q, k, v, mask), atol=1e-6)
    unseen = jnp.where(mask.swapaxes(2, 3), k, jnp.nan), jnp.where(mask.swapaxes(2, 3), v, 1e3)
    np.testing.assert_array_equal(cpu_decoding.attend(q, *unseen, mask), cpu_decoding.attend(q, k, v, mask))


def test_other_attention_is_left_to_xla(compiler):
    q, k, v, mask = looking(2, 4, 4, 16, 8)
    assert cpu_decoding.attend(q, k, v, mask) is not None
    assert cpu_decoding.attend(jnp.repeat(q, 2, 2), k, v, mask) is None
    assert cpu_decoding.attend(q, k, v, jnp.where(mask, 0.0, -1e9)) is None
    assert cpu_decoding.attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask) is None
    with partitioning.use(partitioning.make(MeshConfig())):
        assert cpu_decoding.attend(q, k, v, mask) is None


def test_a_damaged_library_is_made_anew(tmp_path, compiler):
    file = tmp_path / f'few_rows-{cpu_decoding._fingerprint()}.so'
    file.touch()
    ask = 'from bert_jax.modeling import cpu_decoding; print(cpu_decoding._widest_strip())'
    env = {**os.environ, 'BERT_JAX_CACHE': str(tmp_path), 'PYTHONPATH': str(ROOT)}
    answers = [
        subprocess.run(
            [sys.executable, '-c', ask], env=env, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert [int(answer) for answer in answers] == [0, cpu_decoding._widest_strip()]
    assert file.stat().st_size


@pytest.mark.parametrize('compiler_says', [None, 'an error'])
def test_without_a_compiler_it_is_xlas(compiler_says, monkeypatch, tmp_path):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr=compiler_says)

    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    monkeypatch.setattr(subprocess, 'run', fail)
    if compiler_says is None:
        monkeypatch.setattr(shutil, 'which', lambda _: None)
    cpu_decoding._widest_strip.cache_clear()
    try:
        x, w = operands(8, 256, 304)
        assert not own(x, w)
        np.testing.assert_array_equal(product(x, w), x @ w)
        assert cpu_decoding.attend(*looking(2, 4, 4, 16, 8)) is None
    finally:
        cpu_decoding._widest_strip.cache_clear()
