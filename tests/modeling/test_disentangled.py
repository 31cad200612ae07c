"""Disentangled attention: its equation, gradients, padding, packed rows, partial outputs and floating-point operations."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import disentangled, module
from bert_jax.modeling.bart import Bart
from bert_jax.modeling.bert import Bert
from bert_jax.modeling.gpt import Gpt
from bert_jax.train.flops import matmul_flops
from tests.modeling import tiny


@pytest.mark.parametrize(('buckets', 'max_distance'), [(6, 12), (256, 512), (8, 20)])
def test_rows_of_distances(buckets, max_distance):
    rows = disentangled.bucket_indices(buckets, max_distance)
    distance = np.arange(-max_distance, max_distance + 1)
    near = np.abs(distance) <= buckets // 2
    assert (rows[near] == distance[near] + buckets).all()
    assert ((np.diff(rows) == 0) | (np.diff(rows) == 1)).all()
    assert (rows[0], rows[1], rows[-2], rows[-1]) == (0, 1, 2 * buckets - 1, 2 * buckets - 1)


def test_scores_are_those_of_the_equation():
    graph, params = tiny.graph_and_params(Bert, **tiny.DEBERTA, layers=1, use_bias=True)
    tokens, segments = tiny.tokens_and_segments(1, 15)
    model = module.merge(graph, params)
    x = model.embed(params['token_embedding'][tokens] + params['segment_embedding'][segments], None)
    block = model.layers.blocks[0]
    mask = model.layers.relative_embedding(None)
    found = block.attention(x, mask, jnp.arange(15)[None], None)

    def project(vectors):
        kernel, bias = (params[f'layers/blocks/0/attention/qkv/{name}'] for name in ('kernel', 'bias'))
        return jnp.einsum('td,dpnh->pnth', vectors, kernel) + bias[:, :, None]

    q, k, v = project(x)
    table = np.asarray(params['layers/relative_embedding/table'])
    table = (table - table.mean(1, keepdims=True)) / np.sqrt(table.var(1, keepdims=True) + 1e-12)
    norm = {name: params[f'layers/relative_embedding/norm/{name}'] for name in ('scale', 'bias')}
    position_q, position_k, _ = project(table * norm['scale'] + norm['bias'])
    rows = disentangled.bucket_indices(6, 12)
    outputs = np.zeros((15, 4, 8))
    for n, i in itertools.product(range(4), range(15)):
        scores = []
        for j in range(15):
            row = rows[np.clip(i - j, -12, 12) + 12]
            scores.append(q[n, i] @ k[n, j] + q[n, i] @ position_k[n, row] + k[n, j] @ position_q[n, row])
        outputs[i, n] = jax.nn.softmax(jnp.array(scores) / np.sqrt(3 * 8)) @ v[n]
    expected = outputs.reshape(15, -1) @ params['layers/blocks/0/attention/out/kernel'].reshape(
        -1, tiny.WIDTH
    )
    expected += params['layers/blocks/0/attention/out/bias']
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_every_token_attends_to_every_real_token():
    graph, params = tiny.graph_and_params(Bert, **tiny.DEBERTA)
    tokens, segments = tiny.tokens_and_segments(1)
    valid = np.arange(9)[None] < 7
    influence = tiny.influence(graph, params, tokens, segments, valid)
    assert (influence[:7, :7] > 1e-5).all()
    assert (influence[:7, 7:] == 0).all()


def test_embeddings_of_all_distances_in_a_row_are_trained():
    graph, params = tiny.graph_and_params(Bert, **tiny.DEBERTA)
    tokens, _ = tiny.tokens_and_segments(2, 13)

    @jax.jit
    @jax.grad
    def gradient(params):
        return (module.merge(graph, params)(tokens).hidden_states[-1] ** 3).sum()

    norms = np.abs(gradient(params)['layers/relative_embedding/table']).max(1)
    assert norms.shape == (12,)
    assert (norms > 1e-4).all()


def test_padding_changes_no_output():
    tokens, segments = tiny.tokens_and_segments(1, 14)
    run = tiny.model(Bert, **tiny.DEBERTA)
    padded = run(tokens, segments, np.arange(14)[None] < 9)
    cut = run(tokens[:, :9], segments[:, :9])
    for a, b in zip(padded.hidden_states, cut.hidden_states, strict=True):
        np.testing.assert_allclose(a[:, :9], b, atol=1e-5)


MESSAGES = {'disentangled_buckets': 'must be 0, or an even number'}


@pytest.mark.parametrize(
    'changes',
    [
        {'rope_base': 100.0},
        {'relative_buckets': 8, 'relative_max_distance': 12},
        {'window': 3},
        {'kv_heads': 2},
        {'disentangled_buckets': 2},
        {'disentangled_buckets': 30},
        {'disentangled_buckets': 7},
        {'scale_attention': False},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_do_not_go_together_are_refused_by_name(changes):
    name = next(iter(changes))
    with pytest.raises(UserError, match=rf'^model\.disentangled_buckets=.*{MESSAGES.get(name, name)}'):
        module.abstract(functools.partial(Bert, tiny.config(Bert, **tiny.DEBERTA | changes)))


@pytest.mark.parametrize('make', [Gpt, Bart])
def test_decoders_are_refused(make):
    settings = {k: v for k, v in tiny.DEBERTA.items() if k != 'pooler_activation'}
    with pytest.raises(UserError, match='only bidirectional encoders'):
        module.abstract(functools.partial(make, tiny.config(make, **settings)))


@pytest.mark.parametrize('output_positions', [None, np.zeros((2, 3), np.int32)])
@pytest.mark.parametrize('length', [5, 16])
def test_flops_equal_those_of_the_matrix_products(output_positions, length):
    config = tiny.config(**tiny.DEBERTA)
    tokens, segments = tiny.tokens_and_segments(2, length)
    model = module.merge(*tiny.graph_and_params(**tiny.DEBERTA))
    jaxpr = jax.make_jaxpr(model)(tokens, segments, output_positions=output_positions).jaxpr
    pooler = 2 * 2 * config.width**2
    output_tokens = None if output_positions is None else 2 * (3 + 1)
    assert config.block_flops(2 * length, length, output_tokens) == matmul_flops(jaxpr) - pooler
