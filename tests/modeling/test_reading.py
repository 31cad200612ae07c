"""The uses of BERT stand on a GPT and on a BART as well: what each reads of a row."""

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
def on(model, head, *args):
    """A maker of `head` on a model."""

    def make(config, rngs):
        return head(config, *args, rngs)

    make.__name__ = model
    return make


def classifier(model):
    return on(model, heads.ForClassification, 3)


def tagger(model):
    return on(model, heads.ForTokenClassification, 3)


def answerer(model):
    return on(model, heads.ForQuestionAnswering)


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize(
    ('head', 'shape'), [(classifier, (2, 3)), (tagger, (2, 9, 3)), (answerer, (2, 9, 2))]
)
def test_every_head_scores_on_every_model(model, head, shape):
    make = head(model)
    out = tiny.model(make)(*tiny.texts(), VALID)
    assert out.logits.shape == shape
    assert [h.shape for h in out.hidden_states] == [(2, 9, tiny.WIDTH)] * 3
    assert (out.pooled is None) == (head != classifier)
    assert {name.split('/')[0] for name in tiny.parts(make)[1]} == {
        model,
        'spans' if head == answerer else 'classifier',
    }


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('head', [classifier, tagger, answerer])
def test_padding_reaches_no_head_of_any_model(model, head):
    tokens, segments = tiny.texts()
    run = tiny.model(head(model))
    one, other = (run(np.where(VALID, tokens, pad), segments, VALID).logits for pad in (0, 60))
    real = VALID if one.ndim == 3 else slice(None)
    np.testing.assert_allclose(one[real], other[real], atol=1e-6)


@pytest.mark.parametrize('model', MODELS)
def test_scores_alone_are_those_of_the_whole_output(model):
    graph, params = tiny.parts(classifier(model))
    tokens, segments = tiny.texts()
    batch = jax.tree.map(jax.numpy.asarray, {'tokens': tokens, 'segments': segments, 'valid': VALID})
    alone = jax.jit(lambda p: module.merge(graph, p).scores(batch))(params)
    np.testing.assert_allclose(alone, tiny.runner(graph, params)(tokens, segments, VALID).logits, atol=1e-5)


@pytest.mark.parametrize('model', MODELS)
def test_a_class_depends_on_every_token(model):
    tokens, segments = tiny.texts()
    run = tiny.model(classifier(model))
    before = run(tokens, segments).logits[0]
    for i in range(9):
        changed = tokens.copy()
        changed[0, i] = (tokens[0, i] + 1) % tiny.VOCAB
        assert abs(run(changed, segments).logits[0] - before).max() > 1e-4, i


def reach(model):
    """[T, T]: whether the label of token i changes with token j."""
    tokens, segments = tiny.texts(batch=1)
    run = tiny.model(tagger(model))
    before = run(tokens, segments).logits[0]
    found = []
    for j in range(9):
        changed = tokens.copy()
        changed[0, j] = (tokens[0, j] + 1) % tiny.VOCAB
        found.append(abs(run(changed, segments).logits[0] - before).max(-1) > 1e-5)
    return np.array(found).T


def test_a_gpt_labels_a_token_by_what_stands_before_it_and_the_others_by_all():
    np.testing.assert_array_equal(reach('gpt'), np.tril(np.ones((9, 9), bool)))
    assert reach('bert').all()
    assert reach('bart').all()


def test_a_gpt_takes_the_vector_of_the_last_real_token():
    out = tiny.model(classifier('gpt'))(*tiny.texts(), VALID)
    last = np.asarray(out.hidden_states[-1])[[0, 1], [5, 8]]
    np.testing.assert_array_equal(out.pooled, last)


def test_both_halves_of_a_bart_read_the_row_and_the_decoder_begins_with_its_last_token():
    graph, params = tiny.parts(tagger('bart'))
    tokens, segments = tiny.texts()
    found = tiny.runner(graph, params)(tokens, segments, VALID).hidden_states[-1]
    before = np.stack([[row[end], *row[:-1]] for row, end in zip(tokens, (5, 8), strict=True)])
    bare = tiny.parts(Bart)[0]
    own = {name.removeprefix('bart/'): p for name, p in params.items() if name.startswith('bart/')}
    expected = tiny.runner(bare, own)(tokens, before, VALID).hidden_states[-1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
