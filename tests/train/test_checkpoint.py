"""Damage of the parts of a checkpoint that Orbax does not protect: large arrays, metadata and scores."""

import json
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.train import checkpoint, checksums

METADATA = {
    'config': {'model': {'dropout': 0.1}, 'task': {'labels': ('a', 'b')}},
    'tokenizer': {'model': {'é': 1}},
}


def test_any_flipped_bit_in_the_metadata_is_noticed(tmp_path):
    checkpoint.write_params(tmp_path, {'w': np.ones(2, np.float32)}, METADATA)
    step, saved = checkpoint.read_metadata(tmp_path)
    assert saved.items() >= json.loads(json.dumps(METADATA)).items()
    file = step / 'metadata' / 'metadata'
    data, rng = file.read_bytes(), random.Random(0)
    for i in rng.sample(range(len(data)), 60):
        file.write_bytes(data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :])
        try:
            assert checkpoint.read_metadata(tmp_path)[1] == saved, 'only white space may have changed'
        except UserError as e:
            assert 'There is no checkpoint' in str(e)


def test_changed_parameters_are_noticed(tmp_path):
    params = {'w': np.linspace(0, 1, 500, dtype=np.float32)}  # larger than the values that Orbax protects
    checkpoint.write_params(tmp_path, params, METADATA)
    abstract = {'w': jax.ShapeDtypeStruct((500,), np.float32)}
    step = checkpoint.list_steps(tmp_path)[0]
    np.testing.assert_array_equal(checkpoint.read_params(step, abstract)['w'], params['w'])
    checkpoint.write_params(tmp_path / 'other', {'w': np.nextafter(params['w'], 2)}, METADATA)
    shutil.rmtree(step / 'params')
    shutil.copytree(tmp_path / 'other' / 'checkpoints' / '0' / 'params', step / 'params')
    with pytest.raises(UserError, match='parameters have changed since they were saved'):
        checkpoint.read_params(step, abstract)
    assert checkpoint.read_params(step, {'w': jax.ShapeDtypeStruct((500,), jnp.bfloat16)})['w'].shape == (
        500,
    )


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16, np.int32, np.int8, np.bool_, np.float16])
def test_checksum_depends_on_every_bit_and_not_on_the_sharding(dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2, (8, 6)).astype(dtype)
    expected = checksums.compute({'a': array})
    mesh = jax.make_mesh((8,), ('x',), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('x'))
    assert checksums.compute({'a': jax.device_put(array, sharding)}) == expected
    assert checksums.compute({'a': array[::-1].copy()}) != expected
    for _ in range(20):
        changed = array.copy()
        data = changed.reshape(-1).view(np.uint8)
        i = rng.integers(len(data))
        data[i] ^= 1 if dtype is np.bool_ else np.uint8(1 << rng.integers(8))
        assert checksums.compute({'a': changed}) != expected
        with pytest.raises(ValueError, match='the weights have changed'):
            checksums.check({'a': changed}, expected, 'weights')
    checksums.check({'a': array}, expected, 'weights')
    checksums.check({'a': changed}, '', 'weights')


def test_metadata_of_earlier_versions_have_no_seal(tmp_path):
    checkpoint.write_params(tmp_path, {'w': np.ones(2, np.float32)}, METADATA)
    step, saved = checkpoint.read_metadata(tmp_path)
    (step / 'metadata' / 'metadata').write_text(json.dumps(saved))
    assert checkpoint.read_metadata(tmp_path) == (step, saved)


@pytest.mark.parametrize('content', ['', '[', '{"score": "a"}', '{"score": NaN}', '{"scorf": 0.25}'])
def test_damaged_score_is_restored_from_the_metadata(tmp_path, content, caplog):
    for name, text in (
        ('metadata', json.dumps(checkpoint._seal({'scores': {'accuracy': 0.5}}))),
        ('metrics', content),
    ):
        (tmp_path / '3' / name).mkdir(parents=True)
        (tmp_path / '3' / name / name).write_text(text)
    checkpoint._repair_scores(tmp_path, 'accuracy')
    assert json.loads((tmp_path / '3' / 'metrics' / 'metrics').read_text()) == {'score': 0.5}
    assert 'restored the damaged score of checkpoint 3' in caplog.text
    (tmp_path / '3' / 'metrics' / 'metrics').write_text(content)
    (tmp_path / '3' / 'metadata' / 'metadata').write_text('{')
    with pytest.raises(UserError, match=r'is damaged\. Delete the folder .*3'):
        checkpoint._repair_scores(tmp_path, 'accuracy')
