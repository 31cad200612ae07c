"""Encoders with other embeddings, positions or layers than BERT: what their files vary in, and what is refused."""

import types

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import bert
from tests.interop.test_huggingface import CASES, convert

TOKENIZER = types.SimpleNamespace(kind='wordpiece', pad=0, cls=2, sep=3)


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
    ],
)
def test_what_our_encoder_lacks_is_refused(name, change, message):
    with pytest.raises(UserError, match=message):
        huggingface.to_model_config(CASES[name][0] | change)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'embedding_width': 20}, "pooler_activation='tanh' cannot be exported .* 'electra'"),
        ({'embedding_width': 20, 'rope_base': 100.0}, 'model.rope_base=100.0'),
    ],
)
def test_the_error_names_the_settings_that_export(settings, message):
    with pytest.raises(UserError, match=message):
        huggingface.export_model_type(bert.Config(size='tiny', vocab_size=99, **settings), TOKENIZER)
