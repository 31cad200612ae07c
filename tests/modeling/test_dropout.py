"""Dropout: rates, scales, number of random bits, and the work of each device of a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling.dropout import dropout, fold_in, random_integers
from tests.modeling import tiny

PRNGS = ('threefry2x32', 'rbg')


@pytest.mark.parametrize('prng', PRNGS)
@pytest.mark.parametrize(
    ('rate', 'rounded'), [(0.1, 26 / 256), (0.5, 0.5), (0.99, 253 / 256), (0.02, 1311 / 65536)]
)
def test_dropout_zeroes_a_share_and_scales_up_the_rest(rate, rounded, prng):
    y = np.asarray(dropout(jnp.full((1000, 1001), 3.0), rate, jax.random.key(0, impl=prng)))
    assert (y == 0).mean() == pytest.approx(rounded, abs=0.001)
    np.testing.assert_allclose(y[y != 0], 3 / (1 - rounded), rtol=1e-6)
    assert dropout(jnp.ones(3, jnp.bfloat16), rate, jax.random.key(0)).dtype == jnp.bfloat16


def test_small_rates_are_not_rounded_to_zero():
    y = dropout(jnp.ones((1000, 1000)), 1e-6, jax.random.key(0))
    assert (y == 0).sum() == pytest.approx(1e6 / 65536, abs=12)


def test_no_dropout_without_a_key_or_rate():
    x = jnp.ones(1000)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert fold_in(None, 3) is None


@pytest.mark.parametrize('prng', PRNGS)
@pytest.mark.parametrize('width', [8, 16])
def test_integers_are_uniform_and_independent(width, prng):
    integers = np.asarray(random_integers(jax.random.key(1, impl=prng), (600, 1023), width))
    assert integers.shape == (600, 1023)
    assert integers.max() < 2**width
    counts = np.bincount((integers >> (width - 8)).ravel(), minlength=256)
    expected = integers.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-squared with 255 degrees of freedom
    # Entries from one random word are a quarter or a half of the row apart.
    for shift in (1, 256, 512):
        correlation = np.corrcoef(integers[:, shift:].ravel(), integers[:, :-shift].ravel())[0, 1]
        assert abs(correlation) < 0.01


def random_bits(f, *arguments):
    """Number of random bits that a function draws."""
    equations = tiny.equations(jax.make_jaxpr(f)(*arguments).jaxpr)
    return sum(32 * e.outvars[0].aval.size for e in equations if e.primitive.name == 'random_bits')


@pytest.mark.parametrize(('rate', 'bits'), [(0.0, 0), (0.04, 16), (0.1, 8)])
def test_bits_of_a_decision(rate, bits):
    assert random_bits(lambda x: dropout(x, rate, jax.random.key(0)), jnp.ones((5, 8))) == bits * 40


@pytest.mark.parametrize('rates', [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)], ids=str)
def test_model_draws_no_bits_where_the_rate_is_zero(rates):
    graph, params = tiny.graph_and_params(dropout=rates[0], attention_dropout=rates[1])
    tokens, segments = tiny.tokens_and_segments()
    config, (batch, length) = tiny.config(), tokens.shape
    bits = random_bits(lambda key: tiny.runner(graph, params)(tokens, segments, key=key), jax.random.key(0))
    hidden = (1 + 2 * config.layers) * batch * length * config.width
    weights = config.layers * batch * config.heads * length * -(-length // 4) * 4
    assert bits == 8 * ((rates[0] > 0) * hidden + (rates[1] > 0) * weights)


@pytest.mark.parametrize('mesh', [MeshConfig(), MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2)])
def test_each_device_draws_its_own_part_with_the_hardware_generator(mesh):
    partitioner, axes = partitioning.make(mesh), ('batch', 'heads')

    def drop(seed):
        with partitioning.use(partitioner):
            return dropout(jnp.ones((8, 4, 16, 64)), 0.1, jax.random.key(seed, impl='rbg'), axes)

    y = np.asarray(jax.jit(drop)(jnp.uint32(0)))
    assert len({head.tobytes() for head in y.reshape(32, -1)}) == 32
    assert (y == 0).mean() == pytest.approx(26 / 256, abs=0.01)


def test_devices_that_hold_the_same_part_drop_the_same_entries():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2))

    def drop(seed):
        with partitioning.use(partitioner):
            return dropout(jnp.ones((8, 64)), 0.1, jax.random.key(seed, impl='rbg'))

    y = jax.jit(drop, out_shardings=partitioner.batch)(jnp.uint32(0))
    for shard in y.addressable_shards:
        np.testing.assert_array_equal(shard.data, np.asarray(y)[shard.index])


def test_recomputation_drops_the_same_entries():
    partitioner = partitioning.make(MeshConfig())

    def loss(x, seed):
        with partitioning.use(partitioner):
            y = jax.checkpoint(dropout, static_argnums=1)(x, 0.5, jax.random.key(seed, impl='rbg'))
        return (y**2).sum() / 2, y

    gradient, y = jax.jit(jax.grad(loss, has_aux=True))(jnp.ones((8, 64)), jnp.uint32(0))
    np.testing.assert_allclose(gradient, 2 * y)


def test_threefry_is_the_same_on_all_meshes():
    def drop(mesh, devices):
        partitioner = partitioning.make(mesh, jax.devices()[:devices])

        def run(seed):
            with partitioning.use(partitioner):
                return dropout(jnp.ones((8, 64)), 0.1, jax.random.key(seed))

        return np.asarray(jax.jit(run, out_shardings=partitioner.batch)(jnp.uint32(0)))

    np.testing.assert_array_equal(drop(MeshConfig(), 1), drop(MeshConfig('fsdp'), 8))
