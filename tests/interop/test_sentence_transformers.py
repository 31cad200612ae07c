"""Folders of sentence-transformers, both ways."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.interop import sentence_transformers
from bert_jax.train import convert, load
from tests.train.test_convert import write_hf_folder

TEXTS = ['w1 w2 w3', 'w4', 'w1 w5 w6 w7 w8']


def write_folder(
    path, pooling, name='BertModel', modules=('Transformer', 'Pooling', 'Normalize'), **settings
):
    """Write a random encoder with the files of sentence-transformers."""
    write_hf_folder(path, name)
    files = sentence_transformers.make_files(pooling, 32, 9)
    files['modules.json'] = [
        {'path': p, 'type': f'sentence_transformers.models.{kind}'}
        for p, kind in zip(('', '1_Pooling', '2_Normalize', '3_Dense'), modules, strict=False)
    ]
    files['1_Pooling/config.json'] |= settings
    for file, content in files.items():
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize('pooling', ['mean', 'cls', 'max', 'last', 'weighted'])
def test_vectors_survive_a_round_trip(tmp_path, pooling):
    source = write_folder(tmp_path / 'theirs', pooling)
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'embed'
    experiment = load.read(tmp_path / 'ours').experiment
    assert (experiment.task.pooling, experiment.data.length) == (pooling, 9)
    before = bert_jax.load_embedder(tmp_path / 'ours').encode(TEXTS)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'exported')
    assert {*load_file(tmp_path / 'exported/model.safetensors')} <= {*load_file(source / 'model.safetensors')}
    assert 'SentenceTransformer(' in (tmp_path / 'exported/README.md').read_text()
    assert convert.from_hf(str(tmp_path / 'exported'), tmp_path / 'again') == 'embed'
    np.testing.assert_array_equal(bert_jax.load_embedder(tmp_path / 'again').encode(TEXTS), before)
    assert sentence_transformers.read_pooling(tmp_path / 'exported') == (tmp_path / 'exported', pooling, 9)


def test_newer_and_nested_settings_are_read(tmp_path):
    source = write_folder(tmp_path / 'theirs', 'mean')
    (source / '1_Pooling/config.json').write_text('{"embedding_dimension": 32, "pooling_mode": "lasttoken"}')
    assert sentence_transformers.read_pooling(source) == (source, 'last', 9)
    assert sentence_transformers.read_pooling(tmp_path) is None


def test_other_parts_are_errors(tmp_path):
    for i, (modules, settings, message) in enumerate(
        (
            (('Transformer', 'Pooling', 'Dense'), {}, 'consists of Transformer, Pooling, Dense'),
            (('Transformer',), {}, 'consists of Transformer, but only'),
            (('Transformer', 'Pooling'), {'pooling_mode_cls_token': True}, 'has the pooling mean, cls'),
            (('Transformer', 'Pooling'), {'pooling_mode_mean_tokens': False}, 'has the pooling none'),
        )
    ):
        source = write_folder(tmp_path / str(i), 'mean', modules=modules, **settings)
        with pytest.raises(UserError, match=message):
            convert.from_hf(str(source), tmp_path / 'ours')
    (source / 'modules.json').write_text('[')
    with pytest.raises(UserError, match=r'modules.json. cannot be read'):
        convert.from_hf(str(source), tmp_path / 'ours')
