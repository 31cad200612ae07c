"""Converted models give the outputs of Hugging Face, and convert back bitwise; see make_golden.py."""

import dataclasses
import functools
import re
import types

import jax
import numpy as np
import pytest

from bert_jax.core import stacking
from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.output_embedding import find_tied_embeddings
from bert_jax.modeling import beam_search, decoding, heads, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.train import experiment
from bert_jax.train.model import Model
from tests.interop import golden
from tests.modeling import tiny

INPUTS, CASES = golden.read()
HEADS = {
    'classify': heads.ForClassification,
    'tag': heads.ForTokenClassification,
}


def has_next_sentence_head(tensors):
    return any(name.startswith(('cls.seq_relationship', 'sop_classifier')) for name in tensors)


def make(task, config, tensors):
    """The constructor of our model for a checkpoint, which takes its config and `rngs`."""
    if task in HEADS:
        return functools.partial(HEADS[task], classes=len(huggingface.class_names(config)))
    if task == 'mlm':
        return functools.partial(BertForPretraining, next_sentence=has_next_sentence_head(tensors))
    if task in ('clm', 'denoise'):
        return {'clm': GptForCausalLM, 'denoise': BartForSeq2Seq}[task]
    if task == 'choice':
        return functools.partial(heads.ForClassification, classes=1)
    if task == 'qa':
        return heads.ForQuestionAnswering
    has_pooler = any(name.removeprefix('albert.').startswith('pooler.') for name in tensors)
    return functools.partial(heads.Encoder, pooler=has_pooler)


def is_seq2seq(config):
    return huggingface.family_and_task(config)[0].model == 'bart'


def convert(config, tensors):
    """Structure and parameters of our model for a checkpoint."""
    _, task = huggingface.family_and_task(config)
    config = find_tied_embeddings(config, tensors)
    model = huggingface.to_model_config(config)
    constructor = make(task, config, tensors)
    graph, shapes, _ = module.abstract(lambda rngs: constructor(model, rngs=rngs))
    return graph, huggingface.from_tensors(tensors, config, {n: s.shape for n, s in shapes.items()})


@pytest.mark.parametrize('name', CASES)
def test_outputs_equal_theirs(name):
    config, tensors, expected = CASES[name]
    graph, params = convert(config, tensors)
    valid = INPUTS['valid']
    tokens, segments = (INPUTS[k].astype(np.int32) for k in ('tokens', 'segments'))
    second_input = tokens[::-1, :7] if is_seq2seq(config) else segments
    outputs = tiny.runner(graph, params)(tokens, second_input, valid)._asdict()
    assert len(expected) >= 1
    for key, theirs in expected.items():
        if key in ('greedy', 'beams') or key.endswith('attentions'):
            continue
        assert np.std(theirs) > 0.05
        ours = np.stack(outputs[key])
        if ours.shape[-3:-1] == valid.shape:  # outputs at padding may differ
            ours, theirs = (x[..., valid, :] for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize('changes', [{}, {'scan_layers': True, 'remat': 'full'}], ids=['plain', 'scan'])
@pytest.mark.parametrize('name', [n for n in CASES if 'attentions' in CASES[n][2]])
def test_attention_weights_equal_theirs(name, changes):
    config, tensors, expected = CASES[name]
    _, params = convert(config, tensors)
    settings = dataclasses.replace(huggingface.to_model_config(config), **changes)
    constructor = make(huggingface.family_and_task(config)[1], config, tensors)
    graph, shapes, _ = module.abstract(lambda rngs: constructor(settings, rngs=rngs))
    model, inputs = Model(stacking.stack(params, shapes), graph, settings, None), dict(INPUTS)
    if is_seq2seq(config):
        inputs['targets'] = INPUTS['tokens'][::-1, :7]
    outputs = model(**inputs, output_attentions=True)._asdict()
    keys = [key for key in expected if key.endswith('attentions')]
    assert len(keys) == (3 if is_seq2seq(config) else 1)
    for key in keys:
        ours, theirs = np.stack(outputs[key]).swapaxes(2, 3), expected[key].swapaxes(2, 3)
        if ours.shape[1:3] == INPUTS['valid'].shape:  # the weights of padding queries may differ
            ours, theirs = ours[:, INPUTS['valid']], theirs[:, INPUTS['valid']]
        assert np.std(theirs) > 0.03
        np.testing.assert_allclose(ours, theirs, atol=5e-6, rtol=0, err_msg=key)
    assert model(**inputs).attentions is None


# As in `get_decay_parameter_names` of the Trainer of transformers: biases, and layer norms, whose class it tests. Unlike
# there, the table of relative positions is not exempt because of its name.
EXEMPT_FROM_DECAY = re.compile(
    r'(?<!relative_attention_)bias|layer_?norm|(^|\.|_)norm\d?(\.|$)|(^|\.)ln_|emb_ln'
)


@pytest.mark.parametrize('name', CASES)
def test_weight_decay_exempts_the_same_parameters_as_theirs(name):
    config, tensors, _ = CASES[name]
    graph, params = convert(config, tensors)
    undecayed = module.undecayed(graph, params)
    for path, value in params.items():
        if 'relative_bias' in path:  # an embedding of distances, whose name in T5 has the word 'bias'
            continue
        names = huggingface.to_tensors({path: value}, config)
        theirs = [name.lower().removeprefix('roberta_prelayernorm') for name in names]
        assert [bool(EXEMPT_FROM_DECAY.search(name)) for name in theirs] == [path in undecayed] * len(theirs)


@pytest.mark.parametrize('name', [n for n in CASES if 'greedy' in CASES[n][2]])
def test_generated_tokens_equal_theirs(name):
    config, tensors, expected = CASES[name]
    graph, params = convert(config, tensors)
    params = jax.tree.map(jax.numpy.asarray, params)
    prompts, end = [*INPUTS['tokens'][:, :5]], config['eos_token_id']
    options = {'end': end}
    if is_seq2seq(config):
        options['source'] = np.stack(prompts), np.ones((2, 5), bool)
        prompts = [np.array([config['decoder_start_token_id']])] * 2
    greedy = decoding.generate(graph, params, prompts, 30, **options)
    searched = beam_search.search(graph, params, prompts, 30, **options, num_beams=4, length_penalty=0.6)
    for key, ours in (('greedy', greedy), ('beams', searched)):
        theirs = [decoding.truncate(row, end) for row in expected[key]]
        assert [row.tolist() for row in ours] == [row.tolist() for row in theirs]


@pytest.mark.parametrize(
    'name',
    [
        name
        for name in CASES
        if name
        not in (
            'GPT2Model',
            'LlamaModel',
            'Qwen3Model',
            'Starcoder2Model',
            'BartModel',
            'T5Model',
            'ElectraForPreTraining',
        )
    ],
)  # these are exported with a language-model head, or without a head
def test_exported_tensors_are_bitwise_equal(name):
    config, tensors, _ = CASES[name]
    _, params = convert(config, tensors)
    config = dict(find_tied_embeddings(config, tensors))
    family, task = huggingface.family_and_task(config)
    model = huggingface.to_model_config(config)
    ids = {
        ours: config.get(f'{theirs}_token_id', 0)
        for ours, theirs in (('pad', 'pad'), ('cls', 'bos'), ('sep', 'eos'), ('mask', 'mask'))
    }
    kind = 'unigram' if config['model_type'] == 'xlm-roberta' else 'bpe'
    tokenizer = types.SimpleNamespace(kind=kind, decoder_start=config.get('decoder_start_token_id'), **ids)
    has_next_sentence = has_next_sentence_head(tensors)
    names = huggingface.class_names(config)
    exported = huggingface.to_hf_config(model, task, names, tokenizer, has_next_sentence)
    common = exported.keys() & config.keys() - {'dtype', 'id2label', 'label2id', *family.dropout_keys}
    assert len(common) > 10
    if config['model_type'] == 'mt5':  # which differs from T5 only in defaults
        common -= {'model_type', 'architectures'}
    else:
        assert huggingface.family_and_task(exported) == (family, task)
    assert {k: exported[k] for k in common} == {k: config[k] for k in common}
    assert huggingface.to_model_config(exported) == model
    exported_tensors = huggingface.to_tensors(params, exported)
    assert exported_tensors.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(exported_tensors[key], value)


def spoil(change):
    """Config and tensors of a checkpoint after `change(tensors)`."""
    config, tensors, _ = CASES['BertForPreTraining']
    tensors = dict(tensors)
    change(tensors)
    return config, tensors


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.pop('bert.encoder.layer.1.attention.self.key.bias'), r"no tensor 'bert.encoder.layer.1.attention.self.key.bias'"),
        (lambda t: t.update({'bert.extra.weight': np.zeros(3)}), r"no parameter for the tensor 'bert.extra.weight'"),
        (lambda t: t.update({'cls.seq_relationship.weight': np.zeros((3, 32))}), r"'cls.seq_relationship.weight' has shape \(3, 32\), but config.json implies \(2, 32\)"),
        (lambda t: t.update({'bert.embeddings.word_embeddings.weight': np.zeros((98, 32))}), r'has shape \(98, 32\)'),
        (lambda t: t.update({'cls.predictions.decoder.weight': np.zeros((99, 32))}), 'Untied heads'),
        (lambda t: t.update({'bert.encoder.layer.0.intermediate.dense.weight': np.zeros((32, 64))}), r'intermediate.dense.weight. has shape \(32, 64\)'),
        (lambda t: t.update({'bert.pooler.dense.weight': np.zeros(32 * 32)}), r'pooler.dense.weight. has shape \(1024,\)'),
        (lambda t: t.update({'bert.encoder.layer.1.attention.self.query.weight': np.zeros((32, 31))}), r'query.weight. has shape \(32, 31\)'),
    ],
)  # fmt: skip
def test_missing_unused_and_misshapen_tensors_are_rejected(change, message):
    with pytest.raises(UserError, match=message):
        convert(*spoil(change))


def test_a_tied_tensor_can_be_saved_under_either_name():
    def change(t):
        t['cls.predictions.decoder.bias'] = t.pop('cls.predictions.bias')

    _, params = convert(*spoil(change))
    _, plain = convert(*CASES['BertForPreTraining'][:2])
    jax.tree.map(np.testing.assert_array_equal, params, plain)


@pytest.mark.parametrize('pad', [0, 1, 3])
def test_roberta_positions_begin_after_the_padding_id(pad):
    config, tensors, _ = CASES['RobertaModel']
    config = config | {'pad_token_id': pad}
    model, (_, params) = huggingface.to_model_config(config), convert(config, tensors)
    table = tensors['embeddings.position_embeddings.weight']
    assert (model.position_offset, model.max_positions) == (pad + 1, len(table) - pad - 1)
    np.testing.assert_array_equal(params['bert/position_embedding'], table)


def test_the_model_type_follows_the_embeddings():
    tokenizer = types.SimpleNamespace(kind='bpe', pad=1, cls=0, sep=2)
    for model_type, changes in (
        ('bert', {}),
        ('bert', {'segments': 1}),
        ('roberta', {'position_offset': 2}),
        ('distilbert', {'segments': 0, 'pooler_activation': 'relu'}),
        ('electra', {'pooler_activation': 'gelu'}),
        ('albert', {'layer_groups': 1, 'embedding_width': 20}),
        ('nomic_bert', {'rope_base': 50.0, 'gated_mlp': True, 'use_bias': False, 'head_bias': True}),
        (
            'mpnet',
            {'segments': 0, 'relative_buckets': 32, 'learned_positions': True, 'position_offset': 2},
        ),
        ('electra', {'pooler_activation': 'gelu', 'embedding_width': 20, 'segments': 1}),
    ):
        assert huggingface.export_model_type(tiny.config(**changes), tokenizer) == model_type
    with pytest.raises(UserError, match=r"model\.position_offset=5 cannot be exported .* 'roberta'"):
        huggingface.export_model_type(tiny.config(position_offset=5), tokenizer)
    exported = huggingface.to_hf_config(tiny.config(), 'regress', (), tokenizer)
    assert (exported['id2label'], exported['problem_type']) == ({'0': 'LABEL_0'}, 'regression')
    assert huggingface.family_and_task(exported)[1] == 'regress'


SAME_TENSORS = ('ModernBertForQuestionAnswering',)  # as those of a classifier of texts


@pytest.mark.parametrize(
    'name',
    [
        n
        for n in CASES
        if ('For' in n or 'LM' in n) and not any(s in n for s in ('MultipleChoice', 'Token', *SAME_TENSORS))
    ],
)
def test_architectures_are_inferred_from_tensors(name):
    config, tensors, _ = CASES[name]
    names = {k.removeprefix(f'{config["model_type"]}.'): v for k, v in tensors.items()}
    suffix = huggingface.infer_architecture(config, names)
    found = huggingface.family_and_task(config | {'architectures': [suffix]})[1]
    assert found == huggingface.family_and_task(config)[1]


def test_a_gpt2_without_architectures_has_a_language_model_head():
    config = {'model_type': 'gpt2'}
    suffix = huggingface.infer_architecture(config, {'lm_head.weight': np.zeros(1)})
    assert huggingface.family_and_task(config | {'architectures': [suffix]})[1] == 'clm'


def test_tied_copies_buffers_and_old_names_are_accepted():
    def change(t):
        t['cls.predictions.decoder.weight'] = t['bert.embeddings.word_embeddings.weight']
        t['cls.predictions.decoder.bias'] = t['cls.predictions.bias']
        t['bert.embeddings.position_ids'] = np.arange(40)
        for new, old in (('weight', 'gamma'), ('bias', 'beta')):
            t[f'bert.embeddings.LayerNorm.{old}'] = t.pop(f'bert.embeddings.LayerNorm.{new}')

    _, params = convert(*spoil(change))
    _, plain = convert(*CASES['BertForPreTraining'][:2])
    jax.tree.map(np.testing.assert_array_equal, params, plain)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model_type': 'xlnet'}, "type 'xlnet' cannot be converted"),
        ({'architectures': ['BertForNothing']}, "'BertForNothing' cannot be converted"),
        ({'hidden_act': 'swiglu'}, "'swiglu' cannot be converted"),
        ({'is_decoder': True}, 'sets is_decoder to True'),
        ({'position_embedding_type': 'relative_key'}, 'relative_key'),
        (
            {
                'architectures': ['BertForSequenceClassification'],
                'problem_type': 'multi_label_classification',
            },
            'multi_label',
        ),
        (
            {'architectures': ['BertForSequenceClassification'], 'problem_type': 'regression'},
            'regression. with 2 labels',
        ),
        (
            {'model_type': 'roberta', 'architectures': ['RobertaForMaskedLM'], 'hidden_act': 'relu'},
            'head of Roberta always uses gelu',
        ),
    ],
)
def test_unsupported_settings_are_rejected(change, message):
    with pytest.raises(UserError, match=message):
        huggingface.to_model_config(CASES['BertForPreTraining'][0] | change)


PRETRAINING = (
    'pretrain/cpu.py',
    'pretrain/cpu.py:192',
    'pretrain/cpu_bart.py',
    'pretrain/gpu.py',
)


@pytest.mark.parametrize('name', PRETRAINING)
def test_message_names_the_settings_that_export(name):
    tokenizer = types.SimpleNamespace(kind='wordpiece', pad=0)

    def model_type(*overrides):
        found = experiment.read(f'configs/{name}', overrides)
        has_next_sentence = getattr(found.task, 'sentence_objective', 'none') != 'none'
        return huggingface.export_model_type(found.model, tokenizer, has_next_sentence)

    with pytest.raises(UserError, match='cannot be exported') as error:
        model_type()
    overrides = re.findall(r'--config\.(\S+=[^\s`]+)', str(error.value))
    assert model_type(*overrides) in ('modernbert', 'modernbert-decoder', 'gpt2', 'bart')
    exportable = experiment.read(f'configs/{name}', overrides)
    for length in {phase.length for phase in exportable.phases}:
        exportable.model.check_length(length)


EXPORTED = {
    'bert.py': 'bert',
    'gpt.py': 'gpt2',
    'cpu_gpt.py': 'starcoder2',
    'bart.py': 'bart',
    'modernbert.py': 'modernbert',
    'cpu.py:modern': 'modernbert',
}


@pytest.mark.parametrize('name', EXPORTED)
def test_pretraining_configs_export_as_they_are(name):
    found = experiment.read(f'configs/pretrain/{name}')
    tokenizer = types.SimpleNamespace(kind='wordpiece', pad=0)
    has_next_sentence = getattr(found.task, 'sentence_objective', 'none') != 'none'
    assert huggingface.export_model_type(found.model, tokenizer, has_next_sentence) == EXPORTED[name]
