"""Language-model heads with an output embedding, scaled hidden states, and attention without a scale."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.modeling import module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.bert import Bert, BertForPretraining
from bert_jax.modeling.gpt import GptForCausalLM
from tests.modeling import tiny

MODELS = pytest.mark.parametrize('make', [GptForCausalLM, BartForSeq2Seq])
SETTINGS = dict(tied_embeddings=False, scale_logits=True)


@MODELS
def test_logits_are_products_with_the_output_embedding(make):
    graph, params = tiny.graph_and_params(make, **SETTINGS)
    tokens, _ = tiny.tokens_and_segments()
    out = tiny.runner(graph, params)(tokens)
    expected = out.hidden_states[-1] * tiny.WIDTH**-0.5 @ params['output_embedding'][: tiny.VOCAB].T
    if 'logits_bias' in params:
        expected += params['logits_bias'][: tiny.VOCAB]
    np.testing.assert_allclose(out.logits, expected, atol=1e-4)


@MODELS
def test_the_loss_is_that_of_the_logits_and_trains_the_output_embedding(make):
    graph, params = tiny.graph_and_params(make, **SETTINGS)
    tokens, _ = tiny.tokens_and_segments()
    labels = jnp.asarray(np.roll(tokens, -1, 1))

    def loss(params):
        model = module.merge(graph, params)
        out = model(tokens)
        losses, _ = model.token_loss(out.hidden_states[-1], labels)
        return losses.mean(), (losses, out.logits)

    (_, (losses, logits)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    expected = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses, -expected, atol=1e-4)
    assert np.abs(gradients['output_embedding'][: tiny.VOCAB]).min(1).max() > 0


@pytest.mark.parametrize('make', [GptForCausalLM, BartForSeq2Seq])
def test_unscaled_attention_is_that_of_larger_queries(make):
    tokens, _ = tiny.tokens_and_segments()
    settings = dict(heads=2, scale_attention=True)  # 16 wide, so that the scale is exact
    graph, params = tiny.graph_and_params(make, **settings)
    larger = dict(params)
    for name, value in params.items():
        if 'attention/qkv' in name:
            axis = value.ndim - 3
            larger[name] = value.at[(slice(None),) * axis + (0,)].multiply(4.0)
        elif 'cross_attention/q/' in name:
            larger[name] = value * 4.0
    unscaled, _ = tiny.graph_and_params(make, **settings | {'scale_attention': False})
    found, expected = tiny.runner(unscaled, params)(tokens), tiny.runner(graph, larger)(tokens)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    assert np.abs(found.logits - tiny.runner(graph, params)(tokens).logits).max() > 0.1


@pytest.mark.parametrize('use_bias', [False, True])
def test_a_masked_lm_head_can_be_the_output_embedding_alone(use_bias):
    make = functools.partial(BertForPretraining, next_sentence=False)
    make.__name__ = 'Bert'
    graph, params = tiny.graph_and_params(make, **tiny.EUROBERT | {'use_bias': use_bias})
    head = {name for name in params if name.startswith('masked_lm')}
    assert head == {'masked_lm/output_embedding'} | ({'masked_lm/bias'} if use_bias else set())
    tokens, _ = tiny.tokens_and_segments()

    def compute(model):
        out = model(tokens)
        losses, _ = model.masked_loss(out.hidden_states[-1], tokens)
        return out.hidden_states[-1], out.logits, losses

    hidden, logits, losses = tiny.compute(graph, params, compute)
    expected = hidden @ params['masked_lm/output_embedding'][: tiny.VOCAB].T
    if use_bias:
        expected += params['masked_lm/bias'][: tiny.VOCAB]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses, -log_probs, atol=1e-4)


@pytest.mark.parametrize('has_padding', [False, True])
def test_late_pooling_is_the_mean_of_pooled_tokens(has_padding):
    graph, params = tiny.graph_and_params(Bert, **tiny.EUROBERT)
    tokens, segments = tiny.tokens_and_segments(1, 9)
    valid = np.arange(9)[None] < (6 if has_padding else 9)
    out = tiny.runner(graph, params)(tokens, segments, valid if has_padding else None)
    each = jax.nn.gelu(
        out.hidden_states[-1] @ params['pooler/kernel'] + params['pooler/bias'], approximate=False
    )
    np.testing.assert_allclose(out.pooled, each[:, valid[0]].mean(1), atol=1e-5)
