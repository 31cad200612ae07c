"""Each key of a published `config.json` is read, checked or irrelevant; see make_config_defaults.py."""

import json
import pathlib

import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.families import FAMILIES

PUBLISHED = json.loads(pathlib.Path(__file__).with_name('config_defaults.json').read_text())
CLASSES = {
    'bert': ('BertForMaskedLM', 'BertForSequenceClassification'),
    'roberta': ('RobertaForMaskedLM', 'RobertaForSequenceClassification'),
    'roberta-prelayernorm': (
        'RobertaPreLayerNormForMaskedLM',
        'RobertaPreLayerNormForSequenceClassification',
    ),
    'distilbert': ('DistilBertForMaskedLM', 'DistilBertForSequenceClassification'),
    'modernbert': ('ModernBertForMaskedLM', 'ModernBertForSequenceClassification'),
    'modernbert-decoder': ('ModernBertDecoderForCausalLM',),
    'xlm-roberta': ('XLMRobertaForMaskedLM', 'XLMRobertaForSequenceClassification'),
    'gpt2': ('GPT2LMHeadModel',),
    'llama': ('LlamaForCausalLM',),
    'qwen3': ('Qwen3ForCausalLM',),
    'starcoder2': ('Starcoder2ForCausalLM',),
    'bart': ('BartForConditionalGeneration',),
    'electra': ('ElectraForMaskedLM', 'ElectraForSequenceClassification'),
    'mpnet': ('MPNetForMaskedLM', 'MPNetForSequenceClassification'),
    'nomic_bert': ('NomicBertForMaskedLM', 'NomicBertForSequenceClassification'),
    'albert': ('AlbertForMaskedLM', 'AlbertForSequenceClassification'),
    't5': ('T5ForConditionalGeneration', 'T5ForTokenClassification'),
    'mt5': ('MT5ForConditionalGeneration',),
    'eurobert': ('EuroBertForMaskedLM', 'EuroBertForSequenceClassification'),
    'deberta-v2': ('DebertaV2ForSequenceClassification', 'DebertaV2ForTokenClassification'),
}
# Settings without which the class in transformers makes a model that cannot be converted.
NEEDED = {
    'deberta-v2': {
        'relative_attention': True,
        'position_biased_input': False,
        'pos_att_type': ['p2c', 'c2p'],
        'position_buckets': 8,
        'share_att_key': True,
        'norm_rel_ebd': 'layer_norm',
    }
}
# Keys that change neither the parameters nor the outputs of a converted model, and why.
IRRELEVANT_EVERYWHERE = {
    '_name_or_path': 'origin of the model',
    'bos_token_id': 'generation begins with a prompt or with decoder_start_token_id',
    'chunk_size_feed_forward': 'saves memory, with the same result',
    'dtype': 'parameters are always float32',
    'is_encoder_decoder': 'fixed by the model type',
    'label2id': 'inverse of id2label',
    'output_attentions': 'form of the output',
    'output_hidden_states': 'form of the output',
    'return_dict': 'form of the output',
    'use_cache': 'speed of generation',
}
ENCODER = {'eos_token_id': 'the model does not generate', 'pad_token_id': 'padding is masked'}
GENERATOR = {
    'pad_token_id': 'padding is masked',
    'id2label': 'no classifier of this type is converted',
    'problem_type': 'no classifier of this type is converted',
}
MODERNBERT = {
    'cls_token_id': 'the tokenizer has its id',
    'sep_token_id': 'the tokenizer has its id',
    'initializer_cutoff_factor': 'only the initialization',
}
T5 = {
    'pad_token_id': 'padding is masked',
    'decoder_start_token_id': 'generation begins with the padding token of the tokenizer; convert warns of others',
    'feed_forward_proj': 'dense_act_fn and is_gated_act take precedence',
    'initializer_factor': 'only the initialization',
}
IRRELEVANT = {
    'bert': ENCODER,
    'roberta': {'eos_token_id': 'the model does not generate'},
    'roberta-prelayernorm': {'eos_token_id': 'the model does not generate'},
    'xlm-roberta': {'eos_token_id': 'the model does not generate'},
    'distilbert': ENCODER | {'sinusoidal_pos_embds': 'position embeddings are read from the tensors'},
    'modernbert': ENCODER
    | MODERNBERT
    | {
        'deterministic_flash_attn': 'only the kernel of attention',
        'sparse_prediction': 'computes fewer logits, with the same result',
        'sparse_pred_ignore_index': 'computes fewer logits, with the same result',
    },
    'modernbert-decoder': GENERATOR | MODERNBERT | {'sliding_window': 'computed from local_attention'},
    'gpt2': GENERATOR
    | {
        'reorder_and_upcast_attn': 'attention is always computed in float32',
        'summary_activation': 'only GPT2DoubleHeadsModel has a summary',
        'summary_first_dropout': 'only GPT2DoubleHeadsModel has a summary',
        'summary_proj_to_labels': 'only GPT2DoubleHeadsModel has a summary',
        'summary_type': 'only GPT2DoubleHeadsModel has a summary',
        'summary_use_proj': 'only GPT2DoubleHeadsModel has a summary',
    },
    'bart': GENERATOR
    | {
        'forced_eos_token_id': 'only how a generated text of maximal length ends',
        'is_decoder': 'only BartForCausalLM, which is not converted',
    },
    'llama': GENERATOR | {'pretraining_tp': 'how the published weights were trained'},
    'qwen3': GENERATOR
    | dict.fromkeys(('layer_types', 'max_window_layers', 'sliding_window'), 'only with use_sliding_window'),
    'starcoder2': GENERATOR,
    'electra': ENCODER,
    'nomic_bert': ENCODER,
    'albert': ENCODER,
    'mpnet': {'eos_token_id': 'the model does not generate'},
    't5': {k: v for k, v in T5.items() if k != 'decoder_start_token_id'}
    | {'problem_type': 'only for classifiers of texts'},
    'mt5': GENERATOR | T5,
    'eurobert': ENCODER
    | {
        'mask_token_id': 'the tokenizer has its id',
        'pretraining_tp': 'how the published weights were trained',
    },
    'deberta-v2': ENCODER
    | {
        'legacy': 'only which masked-LM head there is, and none is converted',
        'tie_word_embeddings': 'no language model is converted',
    },
}
OTHER_VALUES = {
    'id2label': {'0': 'a', '1': 'b', '2': 'c'},
    'label2id': {'a': 1, 'b': 0},
    'problem_type': 'multi_label_classification',
    'classifier_dropout': 0.3,
    'rope_parameters': {'rope_theta': 500.0, 'full_attention': {'rope_theta': 500.0}},
    'layer_types': ['full_attention'] * 22,
    'classifier_pooling': 'mean',
    'dense_act_fn': 'silu',
    'pos_att_type': ['c2p'],
    'max_relative_positions': 600,
    'norm_rel_ebd': 'none',
}


def other_value(key, value):
    """A value of `key` other than `value`, with which a model would work as well."""
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return 'relu'
    return 2 * value or 1 if value is not None else 8


def read(config):
    """All that is read of a `config.json`, or why it is refused."""
    try:
        task = huggingface.family_and_task(config)[1]
        model = huggingface.to_model_config(config)
    except UserError as e:
        return str(e)
    classes = huggingface.class_names(config) if task in ('classify', 'tag') else ()
    end = huggingface.end_token(config) if task in ('clm', 'denoise') else None
    return task, model, classes, end, huggingface.unread_dropout(config)


@pytest.mark.parametrize('model_type', PUBLISHED)
def test_an_absent_key_has_the_default_of_transformers(model_type):
    defaults, needed = PUBLISHED[model_type]['defaults'], NEEDED.get(model_type, {})
    for name in CLASSES[model_type]:
        config = {**defaults, **needed, 'architectures': [name]}
        assert not isinstance(read(config), str), read(config)
        *expected, _ = read(config)
        for key in defaults.keys() - {'model_type', 'architectures'} - needed.keys():
            assert [*read({k: v for k, v in config.items() if k != key})][:-1] == expected, key
        assert [*read({'model_type': model_type, 'architectures': [name], **needed})][:-1] == expected
    family = FAMILIES[model_type]
    assert family.defaults.items() <= defaults.items()
    assert family.aliases == PUBLISHED[model_type]['aliases']


@pytest.mark.parametrize('model_type', PUBLISHED)
def test_each_key_is_read_refused_or_irrelevant(model_type):
    defaults = PUBLISHED[model_type]['defaults'] | NEEDED.get(model_type, {})
    irrelevant = IRRELEVANT_EVERYWHERE | IRRELEVANT[model_type]
    assert IRRELEVANT[model_type].keys() <= defaults.keys()
    for key in defaults.keys() - {'model_type', 'architectures'}:
        changes = []
        for name in CLASSES[model_type]:
            config = {**defaults, 'architectures': [name]}
            changed = {**config, key: other_value(key, defaults[key])}
            changes.append(read(changed) != read(config))
        assert any(changes) == (key not in irrelevant), key


@pytest.mark.parametrize('model_type', PUBLISHED)
def test_aliases_take_precedence(model_type):
    defaults = PUBLISHED[model_type]['defaults']
    config = {**defaults, 'architectures': [CLASSES[model_type][0]]}
    for alias, key in PUBLISHED[model_type]['aliases'].items():
        changed = {**config, key: 2 * defaults[key]}
        assert read({**config, alias: 2 * defaults[key]}) == read(changed) != read(config)
        assert read({alias: 2 * defaults[key], **config}) == read(changed)


@pytest.mark.parametrize(
    ('labels', 'names'),
    [
        ({'num_labels': 3}, ('LABEL_0', 'LABEL_1', 'LABEL_2')),
        ({'id2label': {'1': 'b', '0': 'a'}}, ('a', 'b')),
        ({'id2label': {'1': 'b', '0': 'a'}, 'num_labels': 2}, ('a', 'b')),
        ({'id2label': {'1': 'b', '0': 'a'}, 'num_labels': 3}, ('LABEL_0', 'LABEL_1', 'LABEL_2')),
        ({'id2label': None}, ('LABEL_0', 'LABEL_1')),
    ],
)
def test_class_names_are_those_of_transformers(labels, names):
    assert huggingface.class_names(labels) == names


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ({'1': 'a', '2': 'b'}, 'Number the classes from 0'),
        ({'0': 1, '1': 2}, 'name each by a string'),
        ({'0': 'a', '1': 'a'}, 'same name for two classes'),
    ],
)
def test_wrong_class_names_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        huggingface.class_names({'id2label': labels})


@pytest.mark.parametrize(
    ('model_type', 'change', 'message'),
    [
        ('bert', {'hidden_act': None}, 'hidden_act to null'),
        ('bert', {'per_layer_config': {'0': {'hidden_act': 'relu'}}}, 'per_layer_config'),
        ('bert', {'tie_word_embeddings': False}, 'tie_word_embeddings'),
        ('roberta', {'pad_token_id': None}, 'pad_token_id to null'),
        ('bart', {'decoder_layers': None}, 'decoder_layers to null'),
        ('bart', {'decoder_start_token_id': 0}, 'decoder_start_token_id to 0, but eos_token_id to 2'),
        ('bart', {'encoder_attention_heads': 8}, 'decoder_attention_heads to 16'),
        ('bart', {'normalize_before': True}, 'normalize_before'),
        ('bart', {'static_position_embeddings': True}, 'static_position_embeddings'),
    ],
)
def test_values_that_our_models_lack_are_refused(model_type, change, message):
    config = {'model_type': model_type, 'architectures': CLASSES[model_type][:1], **change}
    with pytest.raises(UserError, match=message):
        huggingface.to_model_config(config)


def test_a_classifier_does_not_need_tied_embeddings():
    config = {'model_type': 'bert', 'architectures': ['BertForSequenceClassification']}
    untied = huggingface.to_model_config(config | {'tie_word_embeddings': False})
    assert untied == huggingface.to_model_config(config)


@pytest.mark.parametrize(('classes', 'problem_type'), [(1, 'single_label_classification'), (2, 'regression')])
def test_problem_type_must_match_the_number_of_classes(classes, problem_type):
    config = {'model_type': 'bert', 'architectures': ['BertForSequenceClassification'], 'num_labels': classes}
    assert huggingface.family_and_task(config)[1] == ('regress' if classes == 1 else 'classify')
    with pytest.raises(UserError, match=f'{problem_type}. with {classes} labels'):
        huggingface.family_and_task(config | {'problem_type': problem_type})


def test_an_old_gpt2_config_has_the_tanh_approximation():
    model = huggingface.to_model_config({'model_type': 'gpt2', 'n_embd': 32, 'n_head': 4, 'n_layer': 2})
    assert (model.activation, model.mlp_width, model.max_positions) == ('gelu_tanh', 128, 1024)
