"""Weights in and out give the same outputs and the same bits; see make_golden.py."""

import functools
import types

import jax
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import beam_search, decoding, heads, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.gpt import GptForCausalLM
from tests.interop import golden
from tests.modeling import tiny

INPUTS, CASES = golden.read()
HEADS = {
    'classify': heads.ForClassification,
    'tag': heads.ForTokenClassification,
}


def make(task, config, tensors):
    """The class of our model for a checkpoint, without its config and its random numbers."""
    if task in HEADS:
        return functools.partial(HEADS[task], classes=len(huggingface.labels(config)))
    if task == 'mlm':
        return functools.partial(BertForPretraining, next='cls.seq_relationship.weight' in tensors)
    if task in ('clm', 'denoise'):
        return {'clm': GptForCausalLM, 'denoise': BartForSeq2Seq}[task]
    if task == 'qa':
        return heads.ForQuestionAnswering
    return functools.partial(heads.Encoder, pooler='pooler.dense.weight' in tensors)


def convert(config, tensors):
    _, task = huggingface.family(config)
    model = huggingface.model_config(config)
    made = make(task, config, tensors)
    graph, shapes, _ = module.abstract(lambda rngs: made(model, rngs=rngs))
    return graph, huggingface.from_tensors(tensors, config, {n: s.shape for n, s in shapes.items()})


@pytest.mark.parametrize('name', CASES)
def test_every_output_equals_theirs(name):
    config, tensors, expected = CASES[name]
    graph, params = convert(config, tensors)
    valid = INPUTS['valid']
    tokens, segments = (INPUTS[k].astype(np.int32) for k in ('tokens', 'segments'))
    second = tokens[::-1, :7] if config['model_type'] == 'bart' else segments
    found = tiny.runner(graph, params)(tokens, second, valid)._asdict()
    assert len(expected) >= 1
    for key, wanted in expected.items():
        if key in ('greedy', 'beams'):
            continue
        assert np.std(wanted) > 0.05
        got = np.stack(found[key])
        if got.shape[-3:-1] == valid.shape:  # padding may differ
            got, wanted = (x[..., valid, :] for x in (got, wanted))
        np.testing.assert_allclose(got, wanted, atol=2e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize('name', [n for n in CASES if 'greedy' in CASES[n][2]])
def test_what_is_generated_equals_theirs(name):
    config, tensors, expected = CASES[name]
    graph, params = convert(config, tensors)
    params = jax.tree.map(jax.numpy.asarray, params)
    prompts, end = [*INPUTS['tokens'][:, :5]], config['eos_token_id']
    options = {'end': end}
    if config['model_type'] == 'bart':
        prompts, options['source'] = [np.array([end])] * 2, (np.stack(prompts), np.ones((2, 5), bool))
    greedy = decoding.generate(graph, params, prompts, 30, **options)
    searched = beam_search.search(graph, params, prompts, 30, **options, beams=4, length_penalty=0.6)
    for key, found in (('greedy', greedy), ('beams', searched)):
        wanted = [row[: row.tolist().index(end)] if end in row else row for row in expected[key]]
        assert [row.tolist() for row in found] == [row.tolist() for row in wanted]


@pytest.mark.parametrize(
    'name', [name for name in CASES if name not in ('GPT2Model', 'BartModel')]
)  # which goes out with its scores
def test_out_again_to_the_bit(name):
    config, tensors, _ = CASES[name]
    _, params = convert(config, tensors)
    family, task = huggingface.family(config)
    model = huggingface.model_config(config)
    ids = {
        ours: config.get(f'{theirs}_token_id', 0)
        for ours, theirs in (('pad', 'pad'), ('cls', 'bos'), ('sep', 'eos'))
    }
    words = types.SimpleNamespace(family=config['model_type'], **ids)
    pairs = 'cls.seq_relationship.weight' in tensors
    written = huggingface.write_config(model, task, huggingface.labels(config), words, pairs)
    chosen_there = written.keys() & config.keys() - {'dtype', 'id2label', 'label2id'}
    assert len(chosen_there) > 10
    assert {k: written[k] for k in chosen_there} == {k: config[k] for k in chosen_there}
    assert huggingface.family(written) == (family, task)
    assert huggingface.model_config(written) == model
    again = huggingface.to_tensors(params, written)
    assert again.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(again[key], value)


def spoil(change):
    config, tensors, _ = CASES['BertForPreTraining']
    tensors = dict(tensors)
    change(tensors)
    return config, tensors


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.pop('bert.encoder.layer.1.attention.self.key.bias'), r"no tensor 'bert.encoder.layer.1.attention.self.key.bias'"),
        (lambda t: t.update({'bert.extra.weight': np.zeros(3)}), r"'bert.extra.weight' has no place"),
        (lambda t: t.update({'cls.seq_relationship.weight': np.zeros((3, 32))}), r"'cls.seq_relationship.weight' is of shape \(3, 32\), but config.json makes it \(2, 32\)"),
        (lambda t: t.update({'bert.embeddings.word_embeddings.weight': np.zeros((98, 32))}), r'of shape \(98, 32\)'),
        (lambda t: t.update({'cls.predictions.decoder.weight': np.zeros((99, 32))}), 'untied'),
        (lambda t: t.update({'bert.encoder.layer.0.intermediate.dense.weight': np.zeros((32, 64))}), r'intermediate.dense.weight. is of shape \(32, 64\)'),
        (lambda t: t.update({'bert.pooler.dense.weight': np.zeros(32 * 32)}), r'pooler.dense.weight. is of shape \(1024,\)'),
        (lambda t: t.update({'bert.encoder.layer.1.attention.self.query.weight': np.zeros((32, 31))}), r'query.weight. is of shape \(32, 31\)'),
    ],
)  # fmt: skip
def test_every_tensor_is_accounted_for(change, message):
    with pytest.raises(UserError, match=message):
        convert(*spoil(change))


def test_a_tied_tensor_may_be_saved_under_the_name_of_its_copy():
    def change(t):
        t['cls.predictions.decoder.bias'] = t.pop('cls.predictions.bias')

    _, params = convert(*spoil(change))
    _, plain = convert(*CASES['BertForPreTraining'][:2])
    jax.tree.map(np.testing.assert_array_equal, params, plain)


@pytest.mark.parametrize('pad', [0, 1, 3])
def test_positions_of_roberta_are_counted_from_its_padding(pad):
    config, tensors, _ = CASES['RobertaModel']
    config = config | {'pad_token_id': pad}
    model, (_, params) = huggingface.model_config(config), convert(config, tensors)
    table = tensors['embeddings.position_embeddings.weight']
    assert (model.first_position, model.positions) == (pad + 1, len(table) - pad - 1)
    np.testing.assert_array_equal(params['bert/positions'], table)


def test_the_family_follows_the_tokenizer():
    words = {family: types.SimpleNamespace(family=family, pad=1) for family in ('bert', 'roberta')}
    one = tiny.config(segments=1, norm_kind='layer')
    assert huggingface.kind_of(one, words['bert']) == 'bert'
    assert huggingface.kind_of(one, words['roberta']) == 'roberta'
    assert (
        huggingface.write_config(one, 'encode', (), words['roberta'])['max_position_embeddings']
        == one.positions + 2
    )
    for words_of, first in (('roberta', 2), ('bert', 0)):
        counted = tiny.config(segments=1, norm_kind='layer', first_position=first)
        assert huggingface.kind_of(counted, words[words_of]) == words_of
        with pytest.raises(UserError, match='model.first_position'):
            huggingface.kind_of(tiny.config(norm_kind='layer', first_position=5), words[words_of])
    written = huggingface.write_config(one, 'regress', (), words['bert'])
    assert (written['id2label'], written['problem_type']) == ({'0': 'LABEL_0'}, 'regression')
    assert huggingface.family(written)[1] == 'regress'


@pytest.mark.parametrize(
    'name', [n for n in CASES if 'For' in n and 'MultipleChoice' not in n and 'Token' not in n]
)
def test_an_architecture_is_known_by_its_tensors(name):
    config, tensors, _ = CASES[name]
    suffix = huggingface.architecture(
        {k.removeprefix(f'{config["model_type"]}.'): v for k, v in tensors.items()}
    )
    assert huggingface.ARCHITECTURES[suffix] == huggingface.family(config)[1]


def test_copies_buffers_and_old_names_are_understood():
    def change(t):
        t['cls.predictions.decoder.weight'] = t['bert.embeddings.word_embeddings.weight']
        t['cls.predictions.decoder.bias'] = t['cls.predictions.bias']
        t['bert.embeddings.position_ids'] = np.arange(40)
        for ours, theirs in (('weight', 'gamma'), ('bias', 'beta')):
            t[f'bert.embeddings.LayerNorm.{theirs}'] = t.pop(f'bert.embeddings.LayerNorm.{ours}')

    _, params = convert(*spoil(change))
    _, plain = convert(*CASES['BertForPreTraining'][:2])
    jax.tree.map(np.testing.assert_array_equal, params, plain)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model_type': 't5'}, "type 't5' cannot be converted"),
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
            'RoBERTa has gelu',
        ),
    ],
)
def test_what_cannot_be_expressed_is_named(change, message):
    with pytest.raises(UserError, match=message):
        huggingface.model_config(CASES['BertForPreTraining'][0] | change)


def test_a_model_of_ours_alone_is_not_written():
    with pytest.raises(UserError, match=r"model\.norm='pre' has no counterpart"):
        huggingface.write_config(
            tiny.config(norm='pre'), 'mlm', (), types.SimpleNamespace(family='bert', pad=0)
        )
