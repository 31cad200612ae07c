"""Encoders with other embeddings, positions or layers than BERT: what their files vary in, and what is refused."""

import types

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import bert
from tests.interop.test_huggingface import CASES, convert

TOKENIZER = types.SimpleNamespace(kind='wordpiece', pad=1, cls=2, sep=3)


def test_a_discriminator_is_read_as_an_encoder():
    config, tensors, _ = CASES['ElectraForPreTraining']
    assert huggingface.family_and_task(config)[1] == 'encode'
    assert huggingface.unread_tensors(config, tensors) == {
        'discriminator_predictions.': 'detects replaced tokens'
    }
    _, params = convert(config, tensors)
    model = huggingface.to_model_config(config)
    exported = huggingface.to_hf_config(model, 'encode', (), TOKENIZER)
    assert (exported['architectures'], exported['embedding_size']) == (['ElectraModel'], 32)
    written = huggingface.to_tensors(params, exported)
    kept = {k: v for k, v in tensors.items() if not k.startswith('discriminator_predictions.')}
    assert {f'electra.{name}' for name in written} == kept.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(value, kept[f'electra.{name}'])


@pytest.mark.parametrize('size', [20, 32, 48])
def test_embeddings_are_projected_if_their_width_differs(size):
    config = CASES['ElectraModel'][0] | {'embedding_size': size}
    model = huggingface.to_model_config(config)
    assert model.embedding_width == (0 if size == 32 else size)
    assert huggingface.to_hf_config(model, 'encode', (), TOKENIZER)['embedding_size'] == size


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('ElectraForMultipleChoice', {'summary_type': 'mean'}, 'summary_type'),
        ('ElectraForMultipleChoice', {'summary_activation': None}, 'summary_activation'),
        ('ElectraForMaskedLM', {'hidden_act': 'relu'}, 'head of Electra always uses gelu'),
        ('MPNetForMaskedLM', {'hidden_act': 'relu'}, 'head of MPNet always uses gelu'),
        ('MPNetModel', {'relative_attention_num_buckets': 16}, 'relative_attention_num_buckets to 16'),
        ('MPNetModel', {'pad_token_id': 0}, 'pad_token_id to 0'),
    ],
)
def test_what_our_encoder_lacks_is_refused(name, change, message):
    with pytest.raises(UserError, match=message):
        huggingface.to_model_config(CASES[name][0] | change)


def test_mpnet_needs_a_padding_token_with_the_id_1():
    settings = dict(segments=0, relative_buckets=32, learned_positions=True, position_offset=2)
    model = bert.Config(size='tiny', vocab_size=99, **settings)
    ids = types.SimpleNamespace(kind='wordpiece', pad=1, cls=0, sep=2)
    exported = huggingface.to_hf_config(model, 'encode', (), ids)
    assert exported['max_position_embeddings'] == model.max_positions + 2
    assert (exported['bos_token_id'], exported['eos_token_id']) == (0, 2)
    ids.pad = 4
    with pytest.raises(UserError, match="has the id 4 cannot be exported .*'mpnet', where it has the id 1"):
        huggingface.to_hf_config(model, 'encode', (), ids)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'embedding_width': 20}, "pooler_activation='tanh' cannot be exported .* 'electra'"),
        ({'relative_buckets': 16}, "model.relative_buckets=16 and .*as 'mpnet'"),
        ({'embedding_width': 20, 'rope_base': 100.0}, 'model.rope_base=100.0'),
        ({'embedding_width': 128, 'pooler_activation': 'gelu'}, 'pretrain it with .*model.embedding_width=0'),
    ],
)
def test_the_error_names_the_settings_that_export(settings, message):
    with pytest.raises(UserError, match=message):
        huggingface.export_model_type(bert.Config(size='tiny', vocab_size=99, **settings), TOKENIZER)
