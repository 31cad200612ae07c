"""Weights in and out give the same outputs and the same bits; see make_golden.py."""

import functools

import jax
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.modeling import heads, module
from tests.interop import golden
from tests.modeling import tiny

INPUTS, CASES = golden.read()
HEADS = {
    'classify': heads.BertForClassification,
    'tag': heads.BertForTokenClassification,
}


def make(task, config, tensors):
    """The class of our model for a checkpoint, without its config and its random numbers."""
    if task in HEADS:
        return functools.partial(HEADS[task], classes=len(huggingface.labels(config)))
    if task == 'mlm':
        return functools.partial(heads.BertForPretraining, next='cls.seq_relationship.weight' in tensors)
    if task == 'qa':
        return heads.BertForQuestionAnswering
    return functools.partial(heads.BertEncoder, pooler='pooler.dense.weight' in tensors)


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
    found = tiny.runner(graph, params)(tokens, segments, valid)._asdict()
    assert len(expected) >= 1
    for key, wanted in expected.items():
        assert np.std(wanted) > 0.05
        got = np.stack(found[key])
        if key in ('logits', 'hidden_states') and got.ndim > 2:  # padding may differ
            got, wanted = (x[..., valid, :] for x in (got, wanted))
        np.testing.assert_allclose(got, wanted, atol=2e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize('name', CASES)
def test_out_again_to_the_bit(name):
    config, tensors, _ = CASES[name]
    _, params = convert(config, tensors)
    family, task = huggingface.family(config)
    model = huggingface.model_config(config)
    written = huggingface.write_config(
        model, task, huggingface.labels(config), pairs='cls.seq_relationship.weight' in tensors
    )
    chosen_there = written.keys() & config.keys() - {'dtype', 'id2label', 'label2id'}
    assert len(chosen_there) > 10
    assert {k: written[k] for k in chosen_there} == {k: config[k] for k in chosen_there}
    assert huggingface.family(written) == (family, task)
    assert huggingface.model_config(written) == model
    again = huggingface.to_tensors(params, model, written['model_type'], task)
    assert again.keys() == tensors.keys()
    for key, value in tensors.items():
        changed = key.endswith('position_embeddings.weight') and family.skipped
        np.testing.assert_array_equal(
            again[key][family.skipped * bool(changed) :], value[family.skipped * bool(changed) :]
        )


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
        (lambda t: t.update({'cls.seq_relationship.weight': np.zeros((3, 32))}), r'next_sentence/kernel is of shape \(32, 2\)'),
        (lambda t: t.update({'bert.embeddings.word_embeddings.weight': np.zeros((98, 32))}), 'has 98 rows'),
        (lambda t: t.update({'cls.predictions.decoder.weight': np.zeros((99, 32))}), 'untied'),
    ],
)  # fmt: skip
def test_every_tensor_is_accounted_for(change, message):
    with pytest.raises(UserError, match=message):
        convert(*spoil(change))


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
        ({'model_type': 'gpt2'}, "type 'gpt2' cannot be converted"),
        ({'architectures': ['BertForNothing']}, "'BertForNothing' cannot be converted"),
        ({'hidden_act': 'swiglu'}, "'swiglu' cannot be converted"),
        ({'is_decoder': True}, 'sets is_decoder to True'),
        ({'position_embedding_type': 'relative_key'}, 'relative_key'),
    ],
)
def test_what_cannot_be_expressed_is_named(change, message):
    with pytest.raises(UserError, match=message):
        huggingface.model_config(CASES['BertForPreTraining'][0] | change)


def test_a_model_of_ours_alone_is_not_written():
    with pytest.raises(UserError, match=r"model\.norm='pre' has no counterpart"):
        huggingface.write_config(tiny.config(norm='pre'), 'mlm', ())
