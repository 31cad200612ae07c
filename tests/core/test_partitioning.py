"""Mesh, strategies and their errors, on eight fake devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bert_jax.core import partitioning
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig, Partitioner

BATCH = ('data', 'fsdp')


def test_tests_use_eight_devices_and_strict_dtypes():
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
def test_main_axis_takes_remaining_devices(config, shape):
    mesh = partitioning.make(config).mesh
    assert tuple(mesh.shape.items()) == tuple(zip(('data', 'fsdp', 'tensor'), shape, strict=True))
    assert set(mesh.devices.flat) == set(jax.devices())


def test_mesh_uses_selected_devices():
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
def test_mesh_that_does_not_fit_devices_is_rejected(config):
    with pytest.raises(UserError, match=r'8 device\(s\)\. Set mesh\.data, mesh\.fsdp and mesh\.tensor'):
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
def test_specs_of_vocabulary_attention_feed_forward_and_activations(strategy, specs):
    arrays = [('vocab', 'embed'), ('embed', None, 'heads', 'kv'), ('embed', 'mlp'), ('batch', 'heads', None)]
    partitioner = partitioning.make(MeshConfig(strategy))
    assert [partitioner.spec(axes) for axes in arrays] == specs


def test_strategies_are_small_tables():
    assert len(partitioning.LOGICAL_AXES) <= 9
    for rules in partitioning.STRATEGIES.values():
        assert len(rules) <= 10
        assert set(rules) <= set(partitioning.LOGICAL_AXES)


def test_unknown_axis_error_names_parameter_and_closest_axis():
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
def test_two_dimensions_on_one_mesh_axis_are_rejected(strategy, axes, mesh_axis):
    with pytest.raises(UserError, match=f"w .*maps two dimensions to the mesh axis '{mesh_axis}'"):
        partitioning.make(MeshConfig(strategy)).spec(axes, 'w')


def test_indivisible_dimension_error_names_parameter_dimension_and_axis():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', tensor=4))
    message = (
        r'pooler/kernel has shape \(32, 30\), and dimension 1 \(mlp\) is not divisible by 4, .* mesh\.tensor'
    )
    with pytest.raises(UserError, match=message):
        partitioner.sharding(('embed', 'mlp'), (32, 30), 'pooler/kernel')
    message = (
        r'dimension 0 \(batch\) is not divisible by 2, .*Set mesh\.data and mesh\.fsdp so .* divisor of 31\.'
    )
    with pytest.raises(UserError, match=message):
        partitioner.sharding(('batch', 'mlp'), (31, 32), 'x')


def test_sharding_splits_array_according_to_spec():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', tensor=4))
    sharding = partitioner.sharding(('embed', 'mlp'), (6, 8), 'w')
    assert sharding.shard_shape((6, 8)) == (3, 2)
    assert partitioner.replicated.shard_shape((6, 8)) == (6, 8)
    assert partitioner.batch.shard_shape((6, 8)) == (3, 8)


def test_batch_size_must_be_divisible_by_data_times_fsdp():
    partitioner = partitioning.make(MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2))
    assert partitioner.num_batch_shards == 4
    partitioner.check_batch(12)
    with pytest.raises(
        UserError, match=r'train\.eval_batch_size=14, the global batch size, is not divisible by 4'
    ):
        partitioner.check_batch(14, 'train.eval_batch_size')


def test_global_batch_is_local_batch_split_over_devices():
    local = {'tokens': np.arange(32, dtype=np.int32).reshape(16, 2)}
    tokens = partitioning.make(MeshConfig()).global_batch(local)['tokens']
    assert {shard.data.shape for shard in tokens.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(tokens, local['tokens'])


def apply_constrain(partitioner: Partitioner | None) -> jax.Array:
    def f(x: jax.Array) -> jax.Array:
        return partitioning.constrain(x, 'batch', 'mlp')

    x = jnp.ones((8, 8))
    if partitioner is None:
        return jax.jit(f)(x)
    with partitioning.use(partitioner):
        return jax.jit(f)(x)


def test_constrain_shards_activation_if_partitioner_is_active():
    partitioner = partitioning.make(MeshConfig('tp', data=2))
    assert apply_constrain(partitioner).sharding.shard_shape((8, 8)) == (4, 2)
    assert apply_constrain(None).sharding.shard_shape((8, 8)) == (8, 8)


def test_constrain_does_nothing_on_one_device():
    x = jnp.ones((8, 8))
    with partitioning.use(partitioning.make(MeshConfig(), jax.devices()[:1])):
        assert partitioning.constrain(x, 'batch', 'mlp') is x


def test_parameter_table_joins_identical_layers():
    partitioner = partitioning.make(MeshConfig('fsdp'))
    shapes = {
        'blocks/0/kernel': jax.ShapeDtypeStruct((16, 4), jnp.float32),
        'blocks/1/kernel': jax.ShapeDtypeStruct((16, 4), jnp.float32),
        'blocks/2/kernel': jax.ShapeDtypeStruct((16, 8), jnp.float32),
        'norm/scale': jax.ShapeDtypeStruct((1000,), jnp.float32),
    }
    axes = {name: ('embed', 'mlp')[: len(s.shape)] for name, s in shapes.items()}
    shardings = {name: partitioner.sharding(axes[name], s.shape, name) for name, s in shapes.items()}
    lines = partitioning.format_parameters(shardings, shapes).splitlines()
    assert [line.split()[0] for line in lines] == ['blocks/*/kernel', 'blocks/*/kernel', 'norm/scale']
    assert lines[0].endswith('x2')
    assert not lines[1].endswith('x1')
    assert '(16, 4)' in lines[0]
    assert '(16, 8)' in lines[1]
    assert all("'fsdp'" in line for line in lines)


def test_gradients_of_all_shards_are_added_before_the_reduction():
    table, ids = jnp.arange(12.0).reshape(4, 3), jnp.arange(16).reshape(16, 1) % 4

    def loss(table, ids):
        rows = partitioning.map_shards(lambda table, ids: table[ids], table, ids)
        return jnp.square(rows).sum(), rows

    expected = jax.grad(loss, has_aux=True)(table, ids)
    for strategy, splits in (('dp', True), ('fsdp', False)):
        with partitioning.use(partitioning.make(MeshConfig(strategy))):
            found = jax.jit(jax.grad(loss, has_aux=True))(table, ids)
            jaxpr = str(jax.make_jaxpr(lambda *args: loss(*args))(table, ids))  # traced anew
            odd = partitioning.map_shards(lambda table, ids: table[ids], table, ids[:3])
        jax.tree.map(np.testing.assert_allclose, found, expected)
        np.testing.assert_array_equal(odd, table[ids[:3]])
        assert ('f32[8,4,3]' in jaxpr) == splits
