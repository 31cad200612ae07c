"""Mesh, strategies, and what is refused; on eight fake devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bert_jax.core import partitioning
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig, Partitioner

BATCH = ('data', 'fsdp')


def test_tests_run_on_eight_devices_with_strict_dtypes():
    assert jax.device_count() == 8
    assert jax.config.jax_numpy_dtype_promotion == 'strict'


@pytest.mark.parametrize(
    ('config', 'shape'),
    [
        (MeshConfig('dp'), (8, 1, 1)),
        (MeshConfig('fsdp'), (1, 8, 1)),
        (MeshConfig('tp'), (1, 1, 8)),
        (MeshConfig('fsdp_tp'), (1, 8, 1)),
        (MeshConfig('tp', data=2), (2, 1, 4)),
        (MeshConfig('fsdp', data=4), (4, 2, 1)),
        (MeshConfig('fsdp', fsdp=4), (2, 4, 1)),
        (MeshConfig('fsdp_tp', tensor=2), (1, 4, 2)),
        (MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2), (2, 2, 2)),
    ],
)
def test_the_main_axis_takes_the_devices_that_are_left(config, shape):
    mesh = partitioning.make(config).mesh
    assert tuple(mesh.shape.items()) == tuple(zip(('data', 'fsdp', 'tensor'), shape, strict=True))
    assert set(mesh.devices.flat) == set(jax.devices())


def test_a_mesh_takes_the_devices_it_is_given():
    mesh = partitioning.make(MeshConfig(), jax.devices()[2:4]).mesh
    assert list(mesh.devices.flat) == jax.devices()[2:4]


@pytest.mark.parametrize(
    'config',
    [
        MeshConfig(data=3),
        MeshConfig(data=4),
        MeshConfig('tp', data=16),
        MeshConfig('fsdp', fsdp=16),
        MeshConfig('fsdp', data=-1),
        MeshConfig('fsdp', data=-1, fsdp=-8),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(config):
    with pytest.raises(UserError, match=r'8 device\(s\): set mesh\.data, mesh\.fsdp and mesh\.tensor'):
        partitioning.make(config)


@pytest.mark.parametrize(
    ('strategy', 'specs'),
    [
        ('dp', [P(None, None), P(None, None, None, None), P(None, None), P(BATCH, None, None)]),
        ('fsdp', [P(None, 'fsdp'), P('fsdp', None, None, None), P('fsdp', None), P(BATCH, None, None)]),
        (
            'tp',
            [P('tensor', None), P(None, None, 'tensor', None), P(None, 'tensor'), P(BATCH, 'tensor', None)],
        ),
        (
            'fsdp_tp',
            [
                P('tensor', 'fsdp'),
                P('fsdp', None, 'tensor', None),
                P('fsdp', 'tensor'),
                P(BATCH, 'tensor', None),
            ],
        ),
    ],
)
def test_each_strategy_places_vocabulary_attention_feed_forward_and_activations(strategy, specs):
    arrays = [('vocab', 'embed'), ('embed', None, 'heads', 'kv'), ('embed', 'mlp'), ('batch', 'heads', None)]
    partitioner = partitioning.make(MeshConfig(strategy))
    assert [partitioner.spec(axes) for axes in arrays] == specs


def test_a_strategy_is_a_small_table_of_few_axes():
    assert len(partitioning.LOGICAL) <= 9
    for rules in partitioning.STRATEGIES.values():
        assert len(rules) <= 10
        assert set(rules) <= set(partitioning.LOGICAL)


def test_an_unknown_axis_names_the_parameter_and_the_nearest():
    partitioner = partitioning.make(MeshConfig())
    with pytest.raises(
        UserError, match=r"layers/0/kernel has the unknown axis 'embedd': did you mean 'embed'"
    ):
        partitioner.spec(('embedd', 'mlp'), 'layers/0/kernel')


@pytest.mark.parametrize(
    ('strategy', 'axes', 'mesh_axis'),
    [
        ('fsdp', ('embed', 'embed'), 'fsdp'),
        ('tp', ('vocab', 'mlp'), 'tensor'),
        ('fsdp', ('batch', 'embed'), 'fsdp'),
    ],
)
def test_a_mesh_axis_used_twice_is_refused(strategy, axes, mesh_axis):
    with pytest.raises(UserError, match=f"w .*would use the mesh axis '{mesh_axis}' twice"):
        partitioning.make(MeshConfig(strategy)).spec(axes, 'w')


def test_a_dimension_that_does_not_divide_names_parameter_dimension_and_axis():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', tensor=4))
    message = r'pooler/kernel has shape \(32, 30\): dimension 1 \(mlp\) does not divide by 4, .* tensor'
    with pytest.raises(UserError, match=message):
        partitioner.sharding(('embed', 'mlp'), (32, 30), 'pooler/kernel')
    with pytest.raises(UserError, match=r'dimension 0 \(batch\) does not divide by 2'):
        partitioner.sharding(('batch', 'mlp'), (31, 32), 'x')


def test_a_sharding_splits_an_array_as_its_spec_says():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', tensor=4))
    sharding = partitioner.sharding(('embed', 'mlp'), (6, 8), 'w')
    assert sharding.shard_shape((6, 8)) == (3, 2)
    assert partitioner.replicated.shard_shape((6, 8)) == (6, 8)
    assert partitioner.batch.shard_shape((6, 8)) == (3, 8)


def test_a_batch_must_divide_by_data_times_fsdp():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2))
    assert partitioner.batch_parts == 4
    partitioner.check_batch(12)
    with pytest.raises(UserError, match=r'train\.eval_batch_size=14 does not divide by 4'):
        partitioner.check_batch(14, 'train.eval_batch_size')


def test_a_global_batch_is_the_local_one_split_over_devices():
    local = {'tokens': np.arange(32, dtype=np.int32).reshape(16, 2)}
    tokens = partitioning.make(MeshConfig()).global_batch(local)['tokens']
    assert {shard.data.shape for shard in tokens.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(tokens, local['tokens'])


def constrained(partitioner: Partitioner | None) -> jax.Array:
    def f(x: jax.Array) -> jax.Array:
        return partitioning.constrain(x, 'batch', 'mlp')

    x = jnp.ones((8, 8))
    if partitioner is None:
        return jax.jit(f)(x)
    with partitioning.use(partitioner):
        return jax.jit(f)(x)


def test_constrain_pins_an_activation_inside_use():
    partitioner = partitioning.make(MeshConfig('tp', data=2))
    assert constrained(partitioner).sharding.shard_shape((8, 8)) == (4, 2)
    assert constrained(None).sharding.shard_shape((8, 8)) == (8, 8)


def test_constrain_does_nothing_on_one_device():
    x = jnp.ones((8, 8))
    with partitioning.use(partitioning.make(MeshConfig(), jax.devices()[:1])):
        assert partitioning.constrain(x, 'batch', 'mlp') is x


def test_the_table_counts_parameters_and_joins_layers_that_look_alike():
    partitioner = partitioning.make(MeshConfig('fsdp'))
    shapes = {
        'blocks/0/kernel': jax.ShapeDtypeStruct((16, 4), jnp.float32),
        'blocks/1/kernel': jax.ShapeDtypeStruct((16, 4), jnp.float32),
        'blocks/2/kernel': jax.ShapeDtypeStruct((16, 8), jnp.float32),
        'norm/scale': jax.ShapeDtypeStruct((1000,), jnp.float32),
    }
    axes = {name: ('embed', 'mlp')[: len(s.shape)] for name, s in shapes.items()}
    shardings = {name: partitioner.sharding(axes[name], s.shape, name) for name, s in shapes.items()}
    first, *lines = partitioning.table(shardings, shapes).splitlines()
    assert first == '1,256 parameters'
    assert [line.split()[0] for line in lines] == ['blocks/*/kernel', 'blocks/*/kernel', 'norm/scale']
    assert lines[0].endswith('x2')
    assert not lines[1].endswith('x1')
    assert '(16, 4)' in lines[0]
    assert '(16, 8)' in lines[1]
    assert all("'fsdp'" in line for line in lines)
