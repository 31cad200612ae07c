"""Encoders with other embeddings, positions or layers than BERT: what their files vary in, and what is refused."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import bert, module, replaced_tokens
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


# Logits of `ElectraForPreTraining` in transformers for the first row of the stored inputs, which has no padding.
DISCRIMINATOR_LOGITS = [
    -1.62024, -1.93469, -1.64774, -1.62257, -1.79177, -1.75311, -1.19126, -0.67541, -1.44651, -1.18401, -1.37065, -1.45684,
    -1.37681, -1.8606, -1.73313, -1.60579, -1.93315,
]  # fmt: skip


def test_a_discriminator_is_exported_with_its_head():
    config, tensors, outputs = CASES['ElectraForPreTraining']
    _, params = convert(config, tensors)
    dense, classifier = (f'discriminator_predictions.{name}' for name in ('dense', 'dense_prediction'))
    head = {
        'dense/kernel': tensors[f'{dense}.weight'].T,
        'dense/bias': tensors[f'{dense}.bias'],
        'classifier/kernel': tensors[f'{classifier}.weight'].T,
        'classifier/bias': tensors[f'{classifier}.bias'],
    }
    model = huggingface.to_model_config(config)
    graph, shapes, _ = module.abstract(lambda rngs: replaced_tokens.Detector(model, rngs))
    assert {name: value.shape for name, value in head.items()} == {n: s.shape for n, s in shapes.items()}
    logits = module.merge(graph, head)(jnp.asarray(outputs['hidden_states'][-1]))
    np.testing.assert_allclose(logits[0], DISCRIMINATOR_LOGITS, atol=2e-5)
    exported = huggingface.to_hf_config(model, 'rtd', (), TOKENIZER)
    assert exported['architectures'] == ['ElectraForPreTraining']
    params = params | {f'detector/{name}': value for name, value in head.items()}
    written = huggingface.to_tensors(params, exported, 'rtd')
    assert written.keys() == tensors.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(value, tensors[name])


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
        (
            'NomicBertModel',
            {'rope_parameters': {'rope_type': 'yarn', 'factor': 2.0}},
            'scales the rotary positions',
        ),
        ('NomicBertModel', {'head_dim': 16}, 'head_dim to 16, but only 8'),
        ('AlbertModel', {'inner_group_num': 2}, 'inner_group_num to 2'),
        ('AlbertModel', {'num_hidden_groups': 4}, 'model.layer_groups=4 must be from 0 to 3'),
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


# The settings of nomic-embed-text-v1.5 that change the model, for a small one.
PUBLISHED_NOMIC = {
    'model_type': 'nomic_bert',
    'architectures': ['NomicBertModel'],
    **dict(n_embd=32, n_head=4, n_layer=2, n_inner=48, n_positions=8192, vocab_size=99, type_vocab_size=2),
    **dict(
        activation_function='swiglu',
        layer_norm_epsilon=1e-12,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    ),
    **dict(qkv_proj_bias=False, mlp_fc1_bias=False, mlp_fc2_bias=False, prenorm=False, parallel_block=False),
    **dict(
        rotary_emb_fraction=1.0, rotary_emb_interleaved=False, rotary_scaling_factor=None, use_rms_norm=False
    ),
}


def test_published_and_new_keys_of_nomic_bert_are_read():
    model = huggingface.to_model_config(PUBLISHED_NOMIC)
    new = CASES['NomicBertModel'][0] | {
        'max_position_embeddings': 8192,
        'rope_parameters': None,
        'hidden_dropout_prob': 0.0,
        'attention_probs_dropout_prob': 0.0,
    }
    assert model == huggingface.to_model_config(new)
    assert (model.rope_base, model.activation, model.gated_mlp, model.use_bias) == (1000, 'silu', True, False)
    assert huggingface.to_model_config(PUBLISHED_NOMIC | {'rotary_emb_base': 50}).rope_base == 50
    assert huggingface.to_model_config(PUBLISHED_NOMIC | {'n_inner': None}).mlp_width == 128


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'activation_function': 'gelu'}, "activation_function to 'gelu', but only 'swiglu'"),
        ({'qkv_proj_bias': True}, 'qkv_proj_bias to True, but only False'),
        ({'prenorm': True}, 'prenorm to True'),
        ({'rotary_emb_fraction': 0.5}, 'rotary_emb_fraction to 0.5, but only 1.0'),
        ({'rotary_scaling_factor': 2}, 'rotary_scaling_factor to 2'),
    ],
)
def test_other_published_settings_of_nomic_bert_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        huggingface.to_model_config(PUBLISHED_NOMIC | change)
    absent = {k: v for k, v in PUBLISHED_NOMIC.items() if k not in change}
    if 'prenorm' in change or 'rotary_scaling_factor' in change:
        assert huggingface.to_model_config(absent) == huggingface.to_model_config(PUBLISHED_NOMIC)
    else:  # the default of the published class is another
        with pytest.raises(UserError, match=next(iter(change))):
            huggingface.to_model_config(absent)


def test_the_head_of_the_published_nomic_bert_has_no_biases():
    config, tensors, _ = CASES['NomicBertForMaskedLM']
    _, params = convert(config, tensors)
    biases = ('cls.predictions.bias', 'cls.predictions.transform.dense.bias')
    published = {k.replace('nomic_bert.', 'bert.'): v for k, v in tensors.items() if k not in biases}
    _, read = convert(config | {'architectures': ['NomicBertForPreTraining']}, published)
    assert read.keys() == params.keys()
    for name, value in read.items():
        expected = (
            np.zeros_like(value) if name in ('masked_lm/bias', 'masked_lm/dense/bias') else params[name]
        )
        np.testing.assert_array_equal(value, expected, err_msg=name)


@pytest.mark.parametrize(('layers', 'groups'), [(12, 1), (12, 12), (12, 5), (7, 3), (30, 11), (49, 49)])
def test_layers_of_albert_are_in_the_groups_of_transformers(layers, groups):
    config = CASES['AlbertModel'][0] | {'num_hidden_layers': layers, 'num_hidden_groups': groups}
    model = huggingface.to_model_config(config)
    first = {}
    for layer in range(layers):
        group = int(layer / (layers / groups))  # as in AlbertTransformer.forward
        assert model.first_shared_layer(layer) == first.setdefault(group, layer)
        shape = np.zeros(model.width, np.float32)
        (tensor,) = huggingface.to_tensors({f'bert/layers/blocks/{layer}/mlp_norm/bias': shape}, config)
        assert tensor == f'encoder.albert_layer_groups.{group}.albert_layers.0.full_layer_layer_norm.bias'


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'embedding_width': 20}, "pooler_activation='tanh' cannot be exported .* 'electra'"),
        ({'relative_buckets': 16}, "model.relative_buckets=16 and .*as 'mpnet'"),
        ({'layer_groups': 1}, 'model.embedding_width=0 cannot .*model.embedding_width=128'),
        ({'rope_base': 100.0}, "gated_mlp=False cannot be exported .*'nomic_bert'.*head_bias=true"),
        ({'embedding_width': 20, 'rope_base': 100.0}, 'model.rope_base=100.0'),
        ({'embedding_width': 128, 'pooler_activation': 'gelu'}, 'pretrain it with .*model.embedding_width=0'),
    ],
)
def test_the_error_names_the_settings_that_export(settings, message):
    with pytest.raises(UserError, match=message):
        huggingface.export_model_type(bert.Config(size='tiny', vocab_size=99, **settings), TOKENIZER)
