"""Settings of ModernBERT's layers in old and new `config.json`, and export of models that bert_jax trains."""

import types

import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import bert, gpt

TOKENIZER = types.SimpleNamespace(kind='wordpiece', pad=0, cls=2, sep=3)
BASE = {'model_type': 'modernbert', 'architectures': ['ModernBertForMaskedLM'], 'num_hidden_layers': 4}
OLD = {'global_attn_every_n_layers': 2, 'global_rope_theta': 500.0, 'local_rope_theta': 50.0}
NEW = {
    'layer_types': ['full_attention', 'sliding_attention'] * 2,
    'rope_parameters': {
        'full_attention': {'rope_type': 'default', 'rope_theta': 500.0},
        'sliding_attention': {'rope_type': 'default', 'rope_theta': 50.0},
    },
}


@pytest.mark.parametrize(
    'keys', [OLD, NEW, OLD | {'local_rope_theta': 1.0} | NEW], ids=['old', 'new', 'both']
)
def test_old_and_new_keys_are_read(keys):
    model = huggingface.to_model_config({**BASE, **keys})
    assert (model.global_every, model.rope_base, model.local_rope_base, model.window) == (2, 500, 50, 64)
    layers = [model.for_layer(i) for i in range(4)]
    assert [layer.window for layer in layers] == [0, 64, 0, 64]
    assert [layer.rope_base for layer in layers] == [500, 50, 500, 50]
    assert [layer.first_norm for layer in layers] == [False, True, True, True]


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'layer_types': ['sliding_attention'] * 4}, 'layer_types'),
        ({'layer_types': ['full_attention', 'full_attention', 'sliding_attention']}, 'layer_types'),
        ({'rope_parameters': {'full_attention': {'rope_type': 'yarn'}}}, 'scales the rotary positions'),
        ({'rope_scaling': {'type': 'linear', 'factor': 2.0}}, 'scales the rotary positions'),
        ({'local_attention': 1}, 'local_attention'),
        ({'mlp_bias': True}, 'mlp_bias'),
    ],
)
def test_other_layers_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        huggingface.to_model_config({**BASE, **keys})


SETTINGS = dict(
    size='tiny',
    vocab_size=99,
    norm_placement='pre',
    first_norm=False,
    gated_mlp=True,
    prediction_head=True,
    segments=0,
)


@pytest.mark.parametrize(
    'changes',
    [
        dict(rope_base=10_000.0),
        dict(
            rope_base=10_000.0,
            window=8,
            global_every=2,
            local_rope_base=100.0,
            use_bias=False,
            norm_bias=False,
        ),
    ],
    ids=['global', 'local'],
)
def test_pre_norm_rotary_models_are_exported_as_modernbert(changes):
    model = bert.Config(**SETTINGS, **changes)
    exported = huggingface.to_hf_config(model, 'mlm', (), TOKENIZER)
    assert exported['model_type'] == 'modernbert'
    read = huggingface.to_model_config(exported)
    for i in range(model.layers):
        ours, theirs = model.for_layer(i), read.for_layer(i)
        assert (ours.window, ours.rope_base, ours.first_norm) == (
            theirs.window,
            theirs.rope_base,
            theirs.first_norm,
        )


@pytest.mark.parametrize('window', [0, 8])
def test_rotary_decoders_are_exported_as_decoders_of_modernbert(window):
    settings = {k: v for k, v in SETTINGS.items() if k != 'segments'} | dict(rope_base=500.0, window=window)
    model = gpt.Config(**settings, embedding_norm=True, activation='gelu_tanh')
    exported = huggingface.to_hf_config(model, 'clm', (), TOKENIZER)
    assert exported['architectures'] == ['ModernBertDecoderForCausalLM']
    assert exported['classifier_activation'] == exported['hidden_activation'] == 'gelu_new'
    read = huggingface.to_model_config(exported)
    for i in range(model.layers):
        ours, theirs = model.for_layer(i), read.for_layer(i)
        assert (ours.window, ours.rope_base) == (theirs.window, theirs.rope_base)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(UserError, match='local_attention to less than 4'):
        huggingface.to_model_config({'model_type': 'modernbert-decoder', 'local_attention': 3})


def test_the_error_names_the_settings_that_export():
    model = bert.Config(size='tiny', vocab_size=99, norm_placement='pre', rope_base=10_000.0)
    with pytest.raises(UserError, match='cannot be exported') as e:
        huggingface.export_model_type(model, TOKENIZER, has_next_sentence=True)
    for setting in ('first_norm=false', 'gated_mlp=true', 'prediction_head=true', 'segments=0'):
        assert f'--config.model.{setting}' in str(e.value)
    assert '--config.task.sentence_objective=none' in str(e.value)
