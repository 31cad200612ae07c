"""Heads on BERT, GPT and BART: shapes, padding, and the tokens that each output depends on."""

import functools

import jax
import numpy as np
import pytest

from bert_jax.modeling import heads, module
from bert_jax.modeling.bart import Bart
from tests.modeling import tiny

MODELS = ('bert', 'gpt', 'bart')
VALID = np.arange(9)[None] < np.array([[6], [9]])


@functools.cache
def head_maker(model, head, *args):
    """A function that builds `head` on a model."""

    def make(config, rngs):
        return head(config, *args, rngs)

    make.__name__ = model
    return make


def classifier(model):
    return head_maker(model, heads.ForClassification, 3)


def tagger(model):
    return head_maker(model, heads.ForTokenClassification, 3)


def question_answerer(model):
    return head_maker(model, heads.ForQuestionAnswering)


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize(
    ('head', 'shape'), [(classifier, (2, 3)), (tagger, (2, 9, 3)), (question_answerer, (2, 9, 2))]
)
def test_every_head_runs_on_every_model(model, head, shape):
    make = head(model)
    out = tiny.model(make)(*tiny.tokens_and_segments(), VALID)
    assert out.logits.shape == shape
    assert [h.shape for h in out.hidden_states] == [(2, 9, tiny.WIDTH)] * 3
    assert (out.pooled is None) == (head != classifier)
    assert {name.split('/')[0] for name in tiny.graph_and_params(make)[1]} == {
        model,
        'span_classifier' if head == question_answerer else 'classifier',
    }


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('head', [classifier, tagger, question_answerer])
def test_padding_changes_no_head_of_any_model(model, head):
    tokens, segments = tiny.tokens_and_segments()
    run = tiny.model(head(model))
    one, other = (run(np.where(VALID, tokens, pad), segments, VALID).logits for pad in (0, 60))
    real = VALID if one.ndim == 3 else slice(None)
    np.testing.assert_allclose(one[real], other[real], atol=1e-6)


@pytest.mark.parametrize('model', MODELS)
def test_class_logits_equal_those_of_the_full_output(model):
    graph, params = tiny.graph_and_params(classifier(model))
    tokens, segments = tiny.tokens_and_segments()
    batch = jax.tree.map(jax.numpy.asarray, {'tokens': tokens, 'segments': segments, 'valid': VALID})
    logits = jax.jit(lambda p: module.merge(graph, p).class_logits(batch))(params)
    np.testing.assert_allclose(logits, tiny.runner(graph, params)(tokens, segments, VALID).logits, atol=1e-5)


@pytest.mark.parametrize('head', [classifier, tagger, question_answerer])
def test_heads_of_half_precision_models_are_computed_in_float32(head):
    graph, params = tiny.graph_and_params(head('bert'), dtype='bfloat16')
    out = tiny.runner(graph, params)(*tiny.tokens_and_segments())
    logits = module.merge(graph, params)._apply_head(out, None, None).logits
    hidden = np.asarray(out.hidden_states[-1] if out.pooled is None else out.pooled, np.float32)
    name = 'span_classifier' if head == question_answerer else 'classifier'
    expected = hidden @ params[f'{name}/kernel'] + params[f'{name}/bias']
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize('model', MODELS)
def test_a_class_depends_on_every_token(model):
    tokens, segments = tiny.tokens_and_segments()
    run = tiny.model(classifier(model))
    before = run(tokens, segments).logits[0]
    for i in range(9):
        changed = tokens.copy()
        changed[0, i] = (tokens[0, i] + 1) % tiny.VOCAB
        assert abs(run(changed, segments).logits[0] - before).max() > 1e-4, i


def dependence(model):
    """[T, T] booleans, whether the logits of token i depend on token j."""
    tokens, segments = tiny.tokens_and_segments(batch=1)
    run = tiny.model(tagger(model))
    before = run(tokens, segments).logits[0]
    changes = []
    for j in range(9):
        changed = tokens.copy()
        changed[0, j] = (tokens[0, j] + 1) % tiny.VOCAB
        changes.append(abs(run(changed, segments).logits[0] - before).max(-1) > 1e-5)
    return np.array(changes).T


def test_token_logits_are_causal_on_gpt_and_bidirectional_on_others():
    np.testing.assert_array_equal(dependence('gpt'), np.tril(np.ones((9, 9), bool)))
    assert dependence('bert').all()
    assert dependence('bart').all()


def test_gpt_pools_the_last_real_token():
    out = tiny.model(classifier('gpt'))(*tiny.tokens_and_segments(), VALID)
    last = np.asarray(out.hidden_states[-1])[[0, 1], [5, 8]]
    np.testing.assert_array_equal(out.pooled, last)


def test_bart_encodes_a_row_with_encoder_and_decoder_on_a_shifted_decoder_input():
    graph, params = tiny.graph_and_params(tagger('bart'))
    tokens, segments = tiny.tokens_and_segments()
    actual = tiny.runner(graph, params)(tokens, segments, VALID).hidden_states[-1]
    shifted = np.stack([[row[end], *row[:-1]] for row, end in zip(tokens, (5, 8), strict=True)])
    graph = tiny.graph_and_params(Bart)[0]
    bart_params = {name.removeprefix('bart/'): p for name, p in params.items() if name.startswith('bart/')}
    expected = tiny.runner(graph, bart_params)(tokens, shifted, VALID).hidden_states[-1]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
