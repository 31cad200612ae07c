"""Parameters with stacked layers are converted to one array for each layer, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.core import partitioning, stacking

STACKED = {'words': (4, 8), 'blocks/0/w': (3, 8), 'blocks/1:5:2/w': (2, 3, 8), 'blocks/2:5:2/w': (2, 3, 8)}
LAYERS = ['words', *(f'blocks/{i}/w' for i in range(5))]


def arrays(shapes):
    rng = np.random.default_rng(0)
    return {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in shapes.items()}


def test_a_range_in_a_path_stands_for_its_layers():
    assert stacking.layer_paths('bert/blocks/1:10:3/mlp/up') == [f'bert/blocks/{i}/mlp/up' for i in (1, 4, 7)]
    assert stacking.layer_paths('blocks/10/mlp') == ['blocks/10/mlp']
    assert stacking.layer_paths(f'blocks/{stacking.range_name(range(0, 2, 1))}') == ['blocks/0', 'blocks/1']
    assert [stacking.is_stacked(path) for path in STACKED] == [False, False, True, True]
    assert stacking.container('bert/blocks/1:10:3/mlp/up') == 'bert/blocks/'
    assert stacking.container('bert/blocks/1/mlp/up') is None


def test_layers_are_unstacked_and_stacked_again():
    params = arrays(STACKED)
    layers = stacking.unstack(params)
    assert {*layers} == {*LAYERS}
    np.testing.assert_array_equal(layers['blocks/3/w'], params['blocks/1:5:2/w'][1])
    np.testing.assert_array_equal(layers['blocks/2/w'], params['blocks/2:5:2/w'][0])
    again = stacking.stack(layers, params)
    assert [*again] == [*params]
    for path, value in params.items():
        np.testing.assert_array_equal(again[path], value)


def test_a_missing_layer_is_an_error():
    layers = stacking.unstack(arrays(STACKED))
    del layers['blocks/3/w']
    with pytest.raises(KeyError, match='blocks/3/w'):
        stacking.stack(layers, STACKED)


@pytest.mark.parametrize('paths', [STACKED, LAYERS, ['words', 'blocks/0:5:1/w']], ids=len)
def test_trees_are_converted_with_their_shardings(paths):
    mesh = partitioning.make(partitioning.MeshConfig('fsdp')).mesh
    params = {path: jax.device_put(v, NamedSharding(mesh, P())) for path, v in arrays(STACKED).items()}
    tree = (jnp.int32(7), params, {path: v + 1 for path, v in params.items() if path != 'words'})
    structs = {
        path: jax.ShapeDtypeStruct(
            v.shape, v.dtype, sharding=NamedSharding(mesh, P(*[None] * (v.ndim - 1), 'fsdp'))
        )
        for path, v in params.items()
    }
    abstract = (tree[0], structs, {path: structs[path] for path in tree[2]})
    expected, target = stacking.convert(tree, paths), stacking.convert(abstract, paths)
    converted = stacking.convert_arrays(tree, target)
    assert int(converted[0]) == 7
    assert {*converted[1]} == {*paths}
    assert {*converted[2]} == {*paths} - {'words'}
    for part in (1, 2):
        for path, value in converted[part].items():
            assert target[part][path].shape == value.shape
            if path in STACKED:
                assert value is tree[part][path]
            else:
                assert value.sharding.is_equivalent_to(target[part][path].sharding, value.ndim)
                assert value.addressable_shards[0].data.shape == (*value.shape[:-1], 1)
            np.testing.assert_array_equal(value, expected[part][path])
    assert params['blocks/1:5:2/w'].is_deleted() == ('blocks/1:5:2/w' not in paths)
