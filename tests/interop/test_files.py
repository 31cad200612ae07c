"""Model folders as people's tools write them: byte-order marks, tensors inside of a wrapper, no model type."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from bert_jax.interop import files, huggingface


def test_config_with_a_byte_order_mark(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}), encoding='utf-8-sig')
    assert files.read_config(tmp_path) == {'model_type': 'bert'}


@pytest.mark.parametrize(
    ('prefix', 'message'),
    [
        ('module.', 'begin with module.'),
        ('_orig_mod.', 'begin with _orig_mod.'),
        ('module._orig_mod.', 'begin with _orig_mod.'),
        ('', ''),
    ],
)
def test_prefix_of_a_wrapper_is_removed(tmp_path, caplog, prefix, message):
    caplog.set_level('INFO')
    names = ('bert.a', 'cls.b', 'module')
    save_file({f'{prefix}{name}': np.zeros(2) for name in names}, tmp_path / 'model.safetensors')
    assert {*files.read_tensors(tmp_path)} == {*names}
    assert message in caplog.text
    assert bool(caplog.text) == bool(message)


def test_prefix_of_some_tensors_is_kept(tmp_path):
    save_file({'module.a': np.zeros(2), 'b': np.zeros(2)}, tmp_path / 'model.safetensors')
    assert {*files.read_tensors(tmp_path)} == {'module.a', 'b'}


@pytest.mark.parametrize(
    ('name', 'model_type'),
    [
        ('bert.embeddings.word_embeddings.weight', 'bert'),
        ('roberta.embeddings.word_embeddings.weight', 'roberta'),
        ('distilbert.embeddings.word_embeddings.weight', 'distilbert'),
        ('transformer.wte.weight', 'gpt2'),
        ('model.shared.weight', 'bart'),
        ('embeddings.word_embeddings.weight', ''),
    ],
)
def test_model_type_from_the_names_of_tensors(name, model_type):
    assert huggingface.infer_model_type({name: np.zeros(2), 'classifier.weight': np.zeros(2)}) == model_type
