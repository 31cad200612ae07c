"""Products of a few rows: the same as XLA's, with or without a compiler."""

import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import few_rows


def operands(rows, k, n):
    keys = jax.random.split(jax.random.key(rows), 2)
    return jax.random.normal(keys[0], (rows, k)), jax.random.normal(keys[1], (k, n))


@pytest.fixture
def compiler():
    if not few_rows._ready():
        pytest.skip('needs a C++ compiler')


def own(*arguments):
    """Whether a product of these is not XLA's."""
    return 'bert_jax_few_rows' in jax.jit(lambda x, w: few_rows.product(x, w)).lower(*arguments).as_text()


@pytest.mark.parametrize('rows', [2, 3, 4, 5, 6, 7, 8, 9, 32])
@pytest.mark.parametrize(('k', 'n'), [(256, 768), (70, 1000), (1001, 77), (5, 20_000), (4096, 64)])
def test_it_equals_a_product(rows, k, n, compiler):
    x, w = operands(rows, k, n)
    assert own(x, w)
    expected = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    np.testing.assert_allclose(few_rows.product(x, w), expected, atol=5e-4)
    np.testing.assert_allclose(few_rows.product(x, w.T, transposed=True), expected, atol=5e-4)


@pytest.mark.parametrize('transposed', [False, True])
def test_its_gradient_is_that_of_a_product(transposed, compiler):
    x, w = operands(4, 256, 300)

    def loss(x, w):
        return jnp.sin(few_rows.product(x, w.T if transposed else w, transposed)).sum()

    found = jax.grad(loss, (0, 1))(x, w)
    expected = jax.grad(lambda x, w: jnp.sin(x @ w).sum(), (0, 1))(x, w)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_it_can_be_mapped_and_gives_the_type_that_is_asked_for(compiler):
    x, w = operands(12, 256, 300)
    mapped = jax.vmap(few_rows.product, (0, None))(x.reshape(3, 4, 256), w)
    np.testing.assert_allclose(mapped.reshape(12, 300), x @ w, atol=5e-4)
    assert few_rows.product(x, w, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_others_are_left_to_xla(compiler):
    x, w = operands(8, 256, 300)
    assert own(x, w)
    assert not own(*operands(33, 256, 300))
    assert not own(*operands(1, 256, 300))
    assert not own(x, w[:, :10])
    assert not own(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    with partitioning.use(partitioning.make(MeshConfig())):  # several devices
        assert not own(x, w)


@pytest.mark.parametrize('compiler_says', [None, 'an error'])
def test_without_a_compiler_it_is_xlas(compiler_says, monkeypatch, tmp_path):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr=compiler_says)

    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    monkeypatch.setattr(subprocess, 'run', fail)
    if compiler_says is None:
        monkeypatch.setattr(shutil, 'which', lambda _: None)
    few_rows._ready.cache_clear()
    try:
        x, w = operands(8, 256, 300)
        assert not own(x, w)
        np.testing.assert_array_equal(few_rows.product(x, w), x @ w)
    finally:
        few_rows._ready.cache_clear()
