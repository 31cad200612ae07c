"""CPU kernels for generation: equal to XLA, with or without a compiler."""

import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import attention, cpu_decoding


def operands(rows, k, n):
    keys = jax.random.split(jax.random.key(rows), 2)
    return jax.random.normal(keys[0], (rows, k)), jax.random.normal(keys[1], (k, n))


@pytest.fixture
def compiler():
    if not cpu_decoding._max_panel_width():
        pytest.skip('needs a C++ compiler')


@cpu_decoding.packed_matrices()
def packed_matmul(*arguments, **options):
    return cpu_decoding.matmul(*arguments, **options)


def is_packed(*arguments):
    """Whether the packed product computes the product of these."""
    return 'bert_jax_packed_matmul' in jax.jit(lambda x, w: packed_matmul(x, w)).lower(*arguments).as_text()


@pytest.mark.parametrize('rows', [2, 3, 4, 5, 6, 7, 8, 9, 32])
@pytest.mark.parametrize(('k', 'n'), [(256, 768), (70, 992), (1001, 80), (5, 20_000), (4096, 64)])
def test_packed_product_equals_matmul(rows, k, n, compiler):
    x, w = operands(rows, k, n)
    assert is_packed(x, w)
    expected = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    np.testing.assert_allclose(packed_matmul(x, w), expected, atol=5e-4)
    np.testing.assert_allclose(packed_matmul(x, w.T, transposed=True), expected, atol=5e-4)


def test_packed_product_supports_vmap_and_output_dtype(compiler):
    x, w = operands(12, 256, 304)
    mapped = jax.vmap(packed_matmul, (0, None))(x.reshape(3, 4, 256), w)
    np.testing.assert_allclose(mapped.reshape(12, 304), x @ w, atol=5e-4)
    assert packed_matmul(x, w, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def scan_loop(x, w):
    return jax.lax.scan(lambda x, _: (jnp.sin(cpu_decoding.matmul(x, w)), None), x, None, 10)[0]


def while_loop(x, w):
    return jax.lax.while_loop(lambda x: x.max() > 0.1, lambda x: jnp.sin(cpu_decoding.matmul(x, w)), x)


@pytest.mark.parametrize('loop', [scan_loop, while_loop])
def test_matrices_are_packed_once_before_the_loop(loop, compiler):
    @jax.jit
    def run(x, w):
        with cpu_decoding.packed_matrices():
            return loop(x, w)

    x, w = operands(8, 256, 256)
    functions = run.lower(x, w).compile().as_text().split('\n\n')
    (loop,) = (f for f in functions if 'bert_jax_packed_matmul' in f)
    assert 'bert_jax_pack_panels' not in loop
    assert sum('bert_jax_pack_panels' in f for f in functions) == 1


def test_unsupported_products_use_xla(compiler):
    x, w = operands(8, 256, 304)
    assert is_packed(x, w)
    assert 'bert_jax' not in jax.jit(cpu_decoding.matmul).lower(x, w).as_text()  # not in a loop
    assert not is_packed(*operands(33, 256, 304))
    assert not is_packed(*operands(1, 256, 304))
    assert not is_packed(*operands(8, 256, 300))  # not divisible by a panel width
    assert not is_packed(x, w[:, :16])
    assert not is_packed(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    with partitioning.use(partitioning.make(MeshConfig())):  # several devices
        assert not is_packed(x, w)


def queries_and_cache(batch, heads, kv_heads, slots, size):
    """Queries, keys, values, and a mask with invisible slots at the start, in the middle and at the end."""
    keys = jax.random.split(jax.random.key(slots), 4)
    q = jax.random.normal(keys[0], (batch, heads, 1, size))
    k, v = (jax.random.normal(key, (batch, kv_heads, slots, size)) for key in keys[1:3])
    visible = jax.random.bernoulli(keys[3], 0.6, (batch, slots)).at[:, slots // 2].set(True)
    visible &= jnp.arange(slots) < slots - jnp.arange(batch)[:, None] - 1
    return q, k, v, visible[:, None, None]


@pytest.mark.parametrize('shape', [(8, 12, 12, 160, 64), (3, 4, 2, 33, 20), (2, 3, 1, 7, 5)])
def test_attention_to_a_cache_equals_xla(shape, compiler):
    q, k, v, mask = queries_and_cache(*shape)
    np.testing.assert_allclose(cpu_decoding.attend(q, k, v, mask), attention.attend(q, k, v, mask), atol=1e-6)
    spoiled = jnp.where(mask.swapaxes(2, 3), k, jnp.nan), jnp.where(mask.swapaxes(2, 3), v, 1e3)
    np.testing.assert_array_equal(cpu_decoding.attend(q, *spoiled, mask), cpu_decoding.attend(q, k, v, mask))


def test_unsupported_attention_uses_xla(compiler):
    q, k, v, mask = queries_and_cache(2, 4, 4, 16, 8)
    assert cpu_decoding.attend(q, k, v, mask) is not None
    assert cpu_decoding.attend(jnp.repeat(q, 2, 2), k, v, mask) is None
    assert cpu_decoding.attend(q, k, v, jnp.where(mask, 0.0, -1e9)) is None
    assert cpu_decoding.attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask) is None
    with partitioning.use(partitioning.make(MeshConfig())):
        assert cpu_decoding.attend(q, k, v, mask) is None


def test_a_damaged_library_is_not_loaded(tmp_path, compiler):
    file = cpu_decoding._compile(tmp_path, 'x')
    assert [*tmp_path.iterdir()] == [file]
    assert cpu_decoding._find(tmp_path, 'x') == file
    content = file.read_bytes()
    for damaged in (b'', content[:1000], bytes([content[0] ^ 1]) + content[1:]):
        file.write_bytes(damaged)
        assert cpu_decoding._find(tmp_path, 'x') is None
        assert not file.exists()


@pytest.mark.parametrize('compiler_error', [None, 'an error'])
def test_without_a_working_compiler_xla_is_used(compiler_error, monkeypatch, tmp_path):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr=compiler_error)

    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    monkeypatch.setattr(subprocess, 'run', fail)
    if compiler_error is None:
        monkeypatch.setattr(shutil, 'which', lambda _: None)
    cpu_decoding._max_panel_width.cache_clear()
    try:
        x, w = operands(8, 256, 304)
        assert not is_packed(x, w)
        np.testing.assert_array_equal(packed_matmul(x, w), x @ w)
        assert cpu_decoding.attend(*queries_and_cache(2, 4, 4, 16, 8)) is None
    finally:
        cpu_decoding._max_panel_width.cache_clear()
