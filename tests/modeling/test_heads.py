"""Heads: vocabulary logits, the loss at masked positions, and classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.modeling import module
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.heads import ForClassification, vocabulary_bias
from bert_jax.modeling.losses import cross_entropy, vocabulary_loss
from tests.modeling import tiny

POSITIONS = np.array([[1, 4, 6], [0, 8, 8]], np.int32)
LABELS = np.array([[7, 99, 30], [11, 5, 5]], np.int32)
parts = functools.partial(tiny.graph_and_params, BertForPretraining, layers=1)
pretraining = functools.partial(tiny.model, BertForPretraining, layers=1)


def classifier(config, rngs):
    return ForClassification(config, 3, rngs)


def masked_loss():
    """A function of the parameters that computes loss and correctness at `POSITIONS`."""
    graph, _ = parts()

    def f(params):
        model = module.merge(graph, params)
        hidden = model.bert(*tiny.tokens_and_segments(), output_positions=POSITIONS).hidden_states[-1]
        return model.masked_loss(hidden[:, 1:], LABELS)

    return f


def test_padding_entries_of_the_vocabulary_get_no_probability():
    out = pretraining()(*tiny.tokens_and_segments())
    assert out.logits.shape == (2, 9, tiny.VOCAB)
    bias = vocabulary_bias(tiny.config(), parts()[1]['masked_lm/bias'])
    assert bias.shape == (128,)
    assert (bias[tiny.VOCAB :] == -1e9).all()


def test_logits_use_the_token_embedding():
    graph, params = parts()
    word = 50
    tokens, segments = tiny.tokens_and_segments()
    tokens = np.where(tokens == word, word + 1, tokens)
    changed = {**params, 'bert/token_embedding': params['bert/token_embedding'].at[word].add(1)}
    before, after = (tiny.runner(graph, p)(tokens, segments).logits for p in (params, changed))
    others = np.arange(tiny.VOCAB) != word
    np.testing.assert_array_equal(before[..., others], after[..., others])
    assert (abs(before[..., word] - after[..., word]) > 1e-4).all()


def test_the_output_bias_adds_to_the_logits():
    graph, params = parts()
    changed = {**params, 'masked_lm/bias': params['masked_lm/bias'] + 1}
    before, after = (tiny.runner(graph, p)(*tiny.tokens_and_segments()).logits for p in (params, changed))
    np.testing.assert_allclose(after[..., : tiny.VOCAB] - before[..., : tiny.VOCAB], 1, atol=1e-5)


def test_the_loss_at_masked_positions_equals_that_of_the_full_logits():
    _, params = parts()
    loss, correct = jax.jit(masked_loss())(params)
    logits = pretraining()(*tiny.tokens_and_segments()).logits
    expected = np.take_along_axis(np.asarray(logits), POSITIONS[..., None], axis=1)
    np.testing.assert_allclose(loss, cross_entropy(expected, LABELS), rtol=1e-5)
    np.testing.assert_array_equal(correct, expected.argmax(-1) == LABELS)


def test_only_masked_positions_are_projected_to_the_vocabulary():
    _, params = parts()
    jaxpr = jax.make_jaxpr(masked_loss())(params).jaxpr
    shapes = {tuple(v.aval.shape) for eqn in tiny.equations(jaxpr) for v in eqn.outvars}
    assert (POSITIONS.size, 128) in shapes
    assert (2 * 9, 128) not in shapes


def test_next_sentence_logits_depend_on_segments():
    tokens, segments = tiny.tokens_and_segments()
    one, other = (pretraining()(tokens, s).next_sentence for s in (segments, 1 - segments))
    assert one.shape == (2, 2)
    assert abs(one - other).min() > 1e-4


def test_padding_changes_no_head():
    tokens, segments = tiny.tokens_and_segments()
    valid = np.arange(9)[None] < np.array([[5], [8]])
    one, other = (pretraining()(np.where(valid, tokens, pad), segments, valid) for pad in (0, 60))
    np.testing.assert_array_equal(one.next_sentence, other.next_sentence)
    np.testing.assert_array_equal(one.logits[valid], other.logits[valid])


def test_class_logits_come_from_the_pooled_vector():
    out = tiny.model(classifier, layers=1)(*tiny.tokens_and_segments())
    p = tiny.graph_and_params(classifier, layers=1)[1]
    assert out.logits.shape == (2, 3)
    expected = np.asarray(out.pooled) @ p['classifier/kernel'] + p['classifier/bias']
    np.testing.assert_allclose(out.logits, expected, atol=1e-5)
    assert out.next_sentence is None


def test_the_classifier_input_has_dropout():
    graph, params = tiny.graph_and_params(classifier, layers=1, dropout=0.5)
    kernel, bias = jnp.eye(tiny.WIDTH, 3), jnp.zeros(3)
    run = tiny.runner(graph, {**params, 'classifier/kernel': kernel, 'classifier/bias': bias})
    dropped = run(*tiny.tokens_and_segments(99), key=jax.random.key(0)).logits == 0
    assert dropped.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize('make', [BertForPretraining, classifier])
def test_half_precision_applies_to_activations_only(make):
    _, params = tiny.graph_and_params(make, layers=1, dtype='bfloat16')
    assert {p.dtype for p in params.values()} == {np.dtype('float32')}
    half, full = (
        tiny.model(make, layers=1, dtype=dtype)(*tiny.tokens_and_segments())
        for dtype in ('bfloat16', 'float32')
    )
    assert {h.dtype for h in half.hidden_states} == {jnp.bfloat16.dtype}
    assert half.logits.dtype == jnp.float32
    words = slice(0, tiny.VOCAB)
    difference = abs(half.logits - full.logits)[..., words].max()
    assert 0 < difference < 0.1 * abs(full.logits[..., words]).max()


def test_half_precision_next_sentence_logits_are_computed_in_float32():
    graph, params = parts()
    pooled = jnp.asarray(np.random.default_rng(0).normal(size=(4, tiny.WIDTH)), jnp.bfloat16)
    logits = module.merge(graph, params).next_sentence_logits(pooled)
    expected = np.asarray(pooled, np.float32) @ params['next_sentence/kernel'] + params['next_sentence/bias']
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def loss_inputs(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, table = (jnp.asarray(rng.normal(size=(n, 8)), dtype) for n in (5, 20))
    bias = jnp.asarray(np.where(np.arange(20) < 17, rng.normal(size=20), -1e9), jnp.float32)
    return x, table, bias, jnp.array([3, 16, 3, 0, 9]), jnp.array([1.0, 0.0, 0.5, 2.0, 1.0])


def reference_loss(x, table, bias, labels):
    return cross_entropy(jnp.matmul(x, table.T, preferred_element_type=jnp.float32) + bias, labels)


def test_vocabulary_loss_and_its_gradients_equal_cross_entropy():
    x, table, bias, labels, weights = loss_inputs()

    def total(loss):
        return lambda *args: (loss(*args, labels) * weights).sum()

    np.testing.assert_allclose(
        vocabulary_loss(x, table, bias, labels)[0], reference_loss(x, table, bias, labels), rtol=1e-5
    )
    actual, expected = (
        jax.jit(jax.grad(total(loss), (0, 1, 2)))(x, table, bias)
        for loss in (lambda *args: vocabulary_loss(*args)[0], reference_loss)
    )
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert (actual[1][17:] == 0).all()


def test_half_precision_vocabulary_loss_keeps_dtypes_and_is_close():
    x, table, bias, labels, weights = loss_inputs(jnp.bfloat16)
    wide = [a.astype(jnp.float32) for a in (x, table, bias)]

    def run(loss, *args):
        value, back = jax.vjp(lambda *args: loss(*args, labels), *args)
        return value, back(weights)

    value, actual = jax.jit(lambda *args: run(lambda *a: vocabulary_loss(*a)[0], *args))(x, table, bias)
    exact, expected = jax.jit(lambda *args: run(reference_loss, *args))(*wide)
    np.testing.assert_allclose(value, exact, rtol=1e-2)
    for a, b, like in zip(actual, expected, (x, table, bias), strict=True):
        assert a.dtype == like.dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05)


def test_vocabulary_loss_reports_whether_the_label_is_the_argmax():
    x, table, bias, _, _ = loss_inputs()
    best = (x @ table.T + bias).argmax(1)
    assert vocabulary_loss(x, table, bias, best)[1].all()
    assert not vocabulary_loss(x, table, bias, (best + 1) % 17)[1].any()


def test_losses_stay_finite_for_large_logits():
    x, table, bias, labels, _ = loss_inputs()
    loss, back = jax.vjp(lambda x: vocabulary_loss(x, table, bias, labels)[0], x * 1e4)
    assert np.isfinite(loss).all()
    assert np.isfinite(back(jnp.ones(5))[0]).all()
    np.testing.assert_allclose(loss, reference_loss(x * 1e4, table, bias, labels), rtol=1e-5)


def test_cross_entropy_is_the_negative_log_likelihood():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    loss = cross_entropy(logits.astype(jnp.bfloat16), jnp.array([1, 1]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1, 1])), -np.log([0.25, 0.8]), rtol=1e-5)
