"""What is exported is read back equal, for all models and options, or refused by name."""

import dataclasses
import functools
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import bart, bert, gpt, heads, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.gpt import GptForCausalLM

CLASSES = ('no', 'yes', 'perhaps')
TOKENIZER = types.SimpleNamespace(kind='wordpiece', pad=1, cls=2, sep=3)
# Settings that change how a model is computed, stored or initialized, but not its outputs.
UNWRITTEN = (
    'size',
    'dtype',
    'scan_layers',
    'pad_vocab_multiple',
    'scaled_residual_init',
    'zero_residual_init',
)
SHAPE = dict(width=8, heads=2, mlp_width=20, layers=2, vocab_size=30, max_positions=5)
OPTIONS = {
    'activation': st.sampled_from(['gelu', 'gelu_tanh', 'relu', 'relu_squared', 'silu']),
    'dropout': st.sampled_from([0.0, 0.1, 0.3]),
    'attention_dropout': st.sampled_from([0.0, 0.1]),
    'init_std': st.sampled_from([0.02, 0.05]),
    'dtype': st.sampled_from(['float32', 'bfloat16']),
    'scan_layers': st.booleans(),
    'pad_vocab_multiple': st.sampled_from([1, 128]),
}
MODELS = {
    bert: {
        **OPTIONS,
        'segments': st.integers(0, 3),
        'position_offset': st.sampled_from([0, 2]),
        'norm_eps': st.sampled_from([1e-12, 1e-5]),
        'embedding_width': st.sampled_from([0, 0, 8, 12]),
        'layer_groups': st.sampled_from([0, 0, 1, 2]),
        'pooler_activation': st.sampled_from(['tanh', 'gelu']),
    },
    gpt: {**OPTIONS, 'norm_eps': st.sampled_from([1e-12, 1e-5]), 'scaled_residual_init': st.booleans()},
    bart: {**OPTIONS, 'decoder_layers': st.integers(1, 2), 'position_offset': st.sampled_from([0, 2])},
}
TASKS = {
    bert: {
        'encode': functools.partial(heads.Encoder, pooler=False),
        'encode with pooler': functools.partial(heads.Encoder, pooler=True),
        'mlm': functools.partial(BertForPretraining, next_sentence=False),
        'mlm with next sentence': functools.partial(BertForPretraining, next_sentence=True),
        'classify': functools.partial(heads.ForClassification, classes=3),
        'regress': functools.partial(heads.ForClassification, classes=1),
        'choice': functools.partial(heads.ForClassification, classes=1),
        'tag': functools.partial(heads.ForTokenClassification, classes=3),
        'qa': heads.ForQuestionAnswering,
    },
    gpt: {'clm': GptForCausalLM, 'seq2seq': GptForCausalLM},
    bart: {'denoise': BartForSeq2Seq, 'seq2seq': BartForSeq2Seq},
}


@functools.cache
def shapes_of(library, name, **options):
    config = library.Config(**SHAPE, **options)
    _, shapes, _ = module.abstract(lambda rngs: TASKS[library][name](config, rngs=rngs))
    return {name: shape.shape for name, shape in shapes.items()}


def param_shapes(library, name, config):
    """Shapes of the parameters of a model, which only few options affect."""
    fields = {'segments', 'position_offset', 'decoder_layers', 'pad_vocab_multiple'}
    fields |= {'embedding_width', 'layer_groups'}
    return shapes_of(library, name, **{f: getattr(config, f) for f in fields & MODELS[library].keys()})


def export(name, config, params):
    task = name.split()[0]
    classes = CLASSES if task in ('classify', 'tag') else ()
    written = huggingface.to_hf_config(config, task, classes, TOKENIZER, name == 'mlm with next sentence')
    return written, huggingface.to_tensors(params, written)


@pytest.mark.parametrize('library', [bert, gpt, bart], ids=lambda m: m.__name__.rpartition('.')[2])
@hypothesis.settings(max_examples=25)
@hypothesis.given(st.data())
def test_exported_models_are_read_back_equal(library, data):
    options = data.draw(st.fixed_dictionaries(MODELS[library]))
    name = data.draw(st.sampled_from([*TASKS[library]]))
    if not options.get('segments', 1):
        options['pooler_activation'] = 'relu'  # as in DistilBERT
    if options.get('layer_groups'):
        options['scan_layers'] = False
    config = library.Config(**SHAPE, **options)
    rng = np.random.default_rng(0)
    shapes = param_shapes(library, name, config)
    params = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    try:
        written, tensors = export(name, config, params)
    except UserError as e:
        assert any(word in str(e) for word in ('model.', 'task', 'for the parameter'))
        return
    again = huggingface.to_model_config(written)
    unwritten = (*UNWRITTEN, 'position_offset') if library is bart else UNWRITTEN
    assert again == dataclasses.replace(config, **{field: getattr(again, field) for field in unwritten})
    _, task = huggingface.family_and_task(written)
    assert {name.split()[0], task} in ({task}, {'seq2seq', 'clm'}, {'seq2seq', 'denoise'})
    if task in ('classify', 'tag'):
        assert huggingface.class_names(written) == CLASSES
    read = huggingface.from_tensors(tensors, written, param_shapes(library, name, again))
    assert read.keys() == params.keys()
    for key, value in params.items():
        if key.endswith(huggingface._VOCABULARY):
            value, read[key] = value[: config.vocab_size], read[key][: config.vocab_size]
        if key.endswith('position_embedding'):
            unused = len(read[key]) - len(value)  # BART in transformers always has two unused rows
            assert unused == (2 if library is bart and not config.position_offset else 0)
            assert not read[key][:unused].any()
            read[key] = read[key][unused:]
        np.testing.assert_array_equal(read[key], value)


@pytest.mark.parametrize(
    ('changes', 'task', 'message'),
    [
        ({'position_offset': 2, 'activation': 'relu'}, 'mlm', "model.activation='relu' cannot be exported .*'roberta'"),
        ({'position_offset': 3}, 'mlm', 'model.position_offset=3'),
        ({'segments': 0}, 'mlm', "model.pooler_activation='tanh' cannot be exported .*'distilbert'"),
        ({'norm_placement': 'pre', 'rope_base': 100.0}, 'mlm', "model.first_norm=True"),
        ({'kv_heads': 1}, 'mlm', 'model.kv_heads=1'),
        ({}, 'hybrid', "bert model of the task 'hybrid' cannot be exported"),
        ({'qk_norm': True}, 'mlm', 'model.qk_norm=True'),
        ({}, 'dna', r'as .bert.\. Tasks that can be are bilingual, choice, classify, encode, mlm, qa, regress, tag\.'),
        ({'position_offset': 2}, 'choice', "bert model of the task 'choice' cannot be exported .*'roberta'"),
    ],
)  # fmt: skip
def test_what_transformers_lacks_is_refused_by_name(changes, task, message):
    config = bert.Config(size='tiny', vocab_size=30, **changes)
    with pytest.raises(UserError, match=message):
        huggingface.to_hf_config(config, task, (), TOKENIZER)


def test_a_model_without_a_family_is_refused_by_name():
    config = types.SimpleNamespace(name='rnn', causal=False)
    with pytest.raises(UserError, match='rnn model cannot be exported .* are bart, bert, gpt'):
        huggingface.export_model_type(config, TOKENIZER)


@pytest.mark.parametrize('task', ['denoise', 'seq2seq'])
def test_bart_is_exported_with_the_tokens_of_our_generation(task):
    config = bart.Config(size='tiny', vocab_size=30)
    written = huggingface.to_hf_config(config, task, (), TOKENIZER)
    assert written['architectures'] == ['BartForConditionalGeneration']
    assert (written['decoder_start_token_id'], written['eos_token_id'], written['pad_token_id']) == (3, 3, 1)
    assert written['forced_eos_token_id'] is None  # transformers would replace the last of N tokens by it


def test_dropout_rates_are_exported_as_our_models_apply_them():
    config = dict(size='tiny', vocab_size=30, dropout=0.3)
    written = huggingface.to_hf_config(
        bert.Config(**config, segments=0, pooler_activation='relu'), 'qa', (), TOKENIZER
    )
    assert (written['dropout'], written['seq_classif_dropout'], written['qa_dropout']) == (0.3, 0.3, 0.0)
    written = huggingface.to_hf_config(bart.Config(**config), 'denoise', (), TOKENIZER)
    assert (written['dropout'], written['activation_dropout']) == (0.3, 0.0)
    assert huggingface.unread_dropout(written) == {}
    assert huggingface.unread_dropout(written | {'activation_dropout': 0.1}) == {'activation_dropout': 0.1}
