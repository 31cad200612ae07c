"""Blocks and layers: variants, scan and rematerialization, rotary positions, attention, masks and dropout."""

import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import stacking
from bert_jax.modeling import attention_kernels, blocks, layers, local_attention, masks, module
from bert_jax.modeling.attention import attend
from tests.modeling import tiny
from tests.runs import slow_after


@pytest.mark.parametrize(
    'change',
    [
        dict(norm_placement='pre'),
        dict(norm_kind='rms'),
        dict(rope_base=10_000.0),
        dict(gated_mlp=True),
        dict(use_bias=False),
        dict(activation='gelu_tanh'),
        dict(activation='relu'),
        dict(activation='relu_squared'),
        dict(activation='silu'),
        dict(qk_norm=True),
        dict(norm_eps=0.1),
        dict(norm_bias=False),
    ],
    ids=str,
)
def test_every_variant_runs_and_changes_the_output(change):
    default, variant = (tiny.model(layers=1, **c)(*tiny.tokens_and_segments()) for c in ({}, change))
    assert np.isfinite(variant.hidden_states[-1]).all()
    assert abs(default.hidden_states[-1] - variant.hidden_states[-1]).max() > 1e-6


def test_variants_have_exactly_the_parameters_they_need():
    default, modern = (set(tiny.graph_and_params(**change)[1]) for change in ({}, tiny.MODERN))
    assert not any(name.endswith('bias') for name in modern)
    added = {'layers/final_norm/scale'}
    assert modern - default == added
    assert default - modern == {name for name in default if name.endswith('bias')} | {'position_embedding'}


def test_queries_and_keys_are_normalized_per_head_before_rotary_positions():
    config = tiny.config(qk_norm=True, rope_base=100.0)
    attention = layers.Attention(config, module.Rngs(0))
    attention.q_norm.scale[...] = jnp.linspace(0.5, 2, config.width_per_head)
    x = np.random.default_rng(0).normal(size=(2 * 5, config.width)).astype(np.float32)
    positions = jnp.tile(jnp.arange(5), (2, 1))
    q, k, _ = attention._project(x, positions)
    expected = layers.split_heads(attention.qkv(x), 3, 2, config)[:2]
    for found, y, scale in zip((q, k), expected, (attention.q_norm.scale[...], 1.0), strict=True):
        normed = y / np.sqrt(np.square(y).mean(-1, keepdims=True) + config.norm_eps) * scale
        np.testing.assert_allclose(found, layers.rotate(normed, positions, 100.0), atol=1e-5)


def test_blocks_that_begin_as_the_identity_have_zero_projections_into_the_residual_stream():
    block = blocks.Block(tiny.config(zero_residual_init=True, norm_placement='pre'), module.Rngs(0))
    x = np.random.default_rng(0).normal(size=(6, block.config.width)).astype(np.float32)
    np.testing.assert_array_equal(block(x, None, jnp.arange(6)[None], None), x)
    assert block.attention.qkv.kernel[...].any()
    assert block.mlp.up.kernel[...].any()


def test_pre_norm_keeps_the_residual_stream_and_normalizes_the_output():
    graph, params = tiny.graph_and_params(norm_placement='pre', layers=3)
    no_updates = {name: p * 0 if '/out/' in name or '/down/' in name else p for name, p in params.items()}
    h = tiny.runner(graph, no_updates)(*tiny.tokens_and_segments()).hidden_states
    np.testing.assert_array_equal(h[0], h[2])
    final = {name: p for name, p in params.items() if 'final_norm' in name}
    x = np.asarray(h[2])
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    expected = x * final['layers/final_norm/scale'] + final['layers/final_norm/bias']
    np.testing.assert_allclose(h[3], expected, atol=1e-5)


@pytest.mark.parametrize('kind', ['layer', 'rms'])
def test_norms_equal_their_formulas(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (4, 32)).astype(np.float32)
    norm = layers.Norm(tiny.config(norm_kind=kind, norm_eps=0.1), module.Rngs(0))
    norm.scale[...] = jnp.full(32, 2.0)
    if kind == 'layer':
        norm.bias[...] = jnp.full(32, 5.0)
        expected = 2 * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1) + 5
    else:
        assert norm.bias is None
        expected = 2 * x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-5)


def test_half_precision_norms_are_computed_in_float32():
    x = np.random.default_rng(0).normal(1000, 1, (4, 32)).astype(np.float32)
    norm = layers.Norm(tiny.config(), module.Rngs(0))
    half = norm(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    exact = np.asarray(norm(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32)))
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=0.01, atol=0.01)


def test_dense_layers_and_their_gradients_are_matrix_products():
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 12), (5, 6)))
    dense = layers.Dense(tiny.config(), {'heads': 3, 'kv': 4}, {'mlp': 6}, module.Rngs(0))
    graph, params = module.split(dense)
    kernel = np.asarray(params['kernel']).reshape(12, 6)
    y, back = jax.vjp(lambda p, x: module.merge(graph, p)(x), params, x)
    grads, dx = back(g)
    np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
    np.testing.assert_allclose(dx, g @ kernel.T, atol=1e-5)
    np.testing.assert_allclose(grads['kernel'].reshape(12, 6), x.T @ g, atol=1e-5)
    np.testing.assert_allclose(grads['bias'], g.sum(0), atol=1e-5)


def test_half_precision_bias_gradients_are_summed_in_float32():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4096, 12)), jnp.bfloat16)
    gradient = jnp.asarray(rng.normal(0.1, 1, (4096, 6)), jnp.bfloat16)
    graph, params = module.split(layers.Dense(tiny.config(), {'embed': 12}, {'mlp': 6}, module.Rngs(0)))
    y, back = jax.vjp(lambda params: module.merge(graph, params)(x), params)
    assert y.dtype == jnp.bfloat16
    expected = np.asarray(gradient, np.float64).sum(0)
    np.testing.assert_allclose(back(gradient)[0]['bias'], expected, rtol=1e-4)


def value_and_gradient(**changes):
    """Hidden states of a packed row with dropout, and the gradient of a weighted sum of the last."""
    graph, params = tiny.graph_and_params(norm_placement='pre', dropout=0.3, attention_dropout=0.3, **changes)
    tokens, segments = tiny.tokens_and_segments()
    valid = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [1] * 9])

    def loss(params):
        hidden = module.merge(graph, params)(tokens, segments, valid, jax.random.key(3)).hidden_states
        return (hidden[-1] * np.cos(np.arange(tiny.WIDTH, dtype=np.float32))).sum(), hidden

    return jax.value_and_grad(loss, has_aux=True), params


@functools.cache
def cached_value_and_gradient(**changes):
    f, params = value_and_gradient(**changes)
    (_, hidden), grads = jax.jit(f)(params)
    return hidden, stacking.unstack(grads)


def primitives(**changes):
    """Names of all operations of `value_and_gradient`."""
    f, params = value_and_gradient(**changes)
    return [eqn.primitive.name for eqn in tiny.equations(jax.make_jaxpr(f)(params).jaxpr)]


@pytest.mark.parametrize(
    'change',
    [dict(scan_layers=True), dict(remat='dots'), dict(remat='full'), dict(scan_layers=True, remat='full')],
    ids=str,
)
def test_scan_and_remat_change_neither_values_nor_gradients(change):
    hidden, grads = cached_value_and_gradient(layers=4)
    other_hidden, other_grads = cached_value_and_gradient(layers=4, **change)
    for a, b in zip(hidden, other_hidden, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert grads.keys() == other_grads.keys()
    for name, a in grads.items():
        np.testing.assert_allclose(a, other_grads[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize('layers', slow_after(1, [5, 2, 8]))
def test_scan_runs_groups_of_local_and_global_layers(layers):
    """After the first layer, which has no norm, a local and a global layer repeat. The last layer is apart."""
    local = {**tiny.LOCAL, 'layers': layers}
    del local['norm_placement']  # which `value_and_gradient` sets
    hidden, grads = cached_value_and_gradient(**local)
    scanned, scanned_grads = cached_value_and_gradient(**local, scan_layers=True)
    for a, b in zip(hidden, scanned, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for name, a in grads.items():
        np.testing.assert_allclose(a, scanned_grads[name], atol=1e-3, err_msg=name)
    assert ('scan' in primitives(**local, scan_layers=True)) == (layers >= 6)


def test_long_rows_are_computed_block_by_block(monkeypatch):
    tokens, _ = tiny.tokens_and_segments(2, 60)
    valid = np.arange(60)[None] < np.array([[60], [41]])
    graph, params = tiny.graph_and_params(**tiny.LOCAL)
    names = {False: 0, True: 0}
    outputs = {}
    for is_dense in (False, True):
        if is_dense:
            monkeypatch.setattr(local_attention, 'saves_work', lambda *_: False)
        f = functools.partial(module.merge(graph, params), valid=jnp.asarray(valid))
        outputs[is_dense] = jax.jit(f)(tokens).hidden_states[-1][valid]
        shapes = [v.aval.shape for e in tiny.equations(jax.make_jaxpr(f)(tokens).jaxpr) for v in e.outvars]
        names[is_dense] = sum(shape[-2:] == (60, 60) for shape in shapes)
    np.testing.assert_allclose(outputs[False], outputs[True], atol=2e-5)
    assert 0 < names[False] < names[True]


def test_scan_layers_is_one_loop():
    unrolled, scanned = primitives(layers=6), primitives(layers=6, scan_layers=True)
    assert 'scan' not in unrolled
    assert 'scan' in scanned
    assert scanned.count('dot_general') < unrolled.count('dot_general') / 2


def test_remat_recomputes_matrix_products():
    products = {}
    for remat in ('none', 'dots', 'full'):
        names = primitives(remat=remat)
        assert any(name in ('checkpoint', 'remat', 'remat2') for name in names) == (remat != 'none')
        products[remat] = names.count('dot_general')
    assert products['none'] < products['dots'] < products['full']


def test_rotary_scores_depend_only_on_the_distance():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 2, 1, 8)), jnp.float32) for _ in range(2))

    def score(i, j):
        a, b = (layers.rotate(x, jnp.array([[p]]), 100.0) for x, p in ((q, i), (k, j)))
        return np.asarray((a * b).sum(-1))

    np.testing.assert_allclose(score(0, 3), score(20, 23), atol=1e-5)
    np.testing.assert_allclose(score(0, 0), (q * k).sum(-1), atol=1e-6)
    assert abs(score(0, 3) - score(0, 4)).min() > 1e-3
    assert abs(score(0, 3) - score(3, 0)).min() > 1e-3


def test_rotary_rotates_each_pair_by_a_different_angle():
    x = jnp.ones((1, 1, 1, 4))
    rotated = np.asarray(layers.rotate(x, jnp.array([[3]]), 100.0))[0, 0, 0]
    angles = np.array([3.0, 0.3])
    expected = np.concatenate([np.cos(angles) - np.sin(angles), np.cos(angles) + np.sin(angles)])
    np.testing.assert_allclose(rotated, expected, atol=1e-6)
    assert layers.rotate(x.astype(jnp.bfloat16), jnp.array([[3]]), 100.0).dtype == jnp.bfloat16


@pytest.mark.parametrize('rope_base', [0.0, 10_000.0])
def test_attention_depends_on_relative_positions_only_with_rotation(rope_base):
    attention = layers.Attention(tiny.config(rope_base=rope_base, init_std=0.5), module.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 32)), jnp.float32)
    run = jax.jit(lambda positions: attention(x, None, positions, None))
    base = np.arange(6)[None]
    np.testing.assert_allclose(run(base), run(base + 30), atol=1e-4)
    assert (abs(run(base) - run(base[:, ::-1])).max() > 1e-2) == bool(rope_base)


def qkv(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(2, 3, t, 8)), dtype) for t in (4, 5, 5)]


def test_attention_equals_its_formula():
    q, k, v = qkv()
    mask = np.random.default_rng(1).random((2, 1, 4, 5)) < 0.7
    mask[..., 0] = True
    scores = np.einsum('bnqh,bnkh->bnqk', q, k) / np.sqrt(8)
    weights = np.where(mask, np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum('bnqk,bnkh->bnqh', weights, v)
    np.testing.assert_allclose(attend(q, k, v, jnp.asarray(mask)), expected, atol=1e-5)


def test_half_precision_attention_has_a_float32_softmax():
    q, k, v = qkv(jnp.bfloat16)
    half = attend(q, k, v, None)
    assert half.dtype == jnp.bfloat16
    exact = attend(*(x.astype(jnp.float32) for x in (q, k, v)), None)
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.03)
    equations = tiny.equations(jax.make_jaxpr(lambda *x: attend(*x, None))(q, k, v).jaxpr)
    assert {str(e.invars[0].aval.dtype) for e in equations if e.primitive.name == 'exp'} == {'float32'}


def test_padding_masks_allow_real_tokens_of_the_same_document():
    allowed = masks.padding(jnp.array([[True, True, False]])).to_array(3, 3)
    np.testing.assert_array_equal(allowed, [[[[True, True, False]]]])
    np.testing.assert_array_equal(
        masks.padding(jnp.array([[1, 1, 2, 0]])).to_array(4, 4)[0, 0],
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    )


@pytest.mark.parametrize('rates', [dict(dropout=0.2), dict(attention_dropout=0.2)], ids=str)
def test_dropout_of_a_model_depends_only_on_the_key(rates):
    run, inputs = tiny.model(**rates), tiny.tokens_and_segments()
    none, plain = run(*inputs).pooled, tiny.model()(*inputs).pooled
    np.testing.assert_allclose(none, plain, atol=1e-5)
    one, same, other = (run(*inputs, key=jax.random.key(seed)).pooled for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 1e-3
    assert abs(one - none).max() > 1e-3


@pytest.mark.parametrize('scan_layers', [False, True])
def test_dropout_of_sublayers_is_independent(scan_layers):
    rate = 0.5
    graph, params = tiny.graph_and_params(
        norm_placement='pre', layers=4, dropout=rate, scan_layers=scan_layers
    )
    constant = {
        'attention/out/kernel': 0.0,
        'attention/out/bias': 1.0,
        'mlp/down/kernel': 0.0,
        'mlp/down/bias': 1.0,
    }
    for name, p in params.items():
        for suffix, value in constant.items():
            if name.endswith(suffix):
                params = {**params, name: jnp.full(p.shape, value)}
    h = tiny.runner(graph, params)(*tiny.tokens_and_segments(16, 40), key=jax.random.key(0)).hidden_states
    kept = [np.round((b - a) * (1 - rate)).astype(int) for a, b in itertools.pairwise(h[:-1])]
    for counts in kept:  # number of sublayers whose output is kept: 0, 1 or 2
        np.testing.assert_allclose(np.bincount(counts.ravel()) / counts.size, [0.25, 0.5, 0.25], atol=0.02)
    assert (kept[0] == kept[1]).mean() == pytest.approx(0.375, abs=0.02)
    assert (h[0] == 0).mean() == pytest.approx(rate, abs=0.02)


def test_attention_dropout_drops_weights():
    q, k, _ = qkv()
    v = jnp.broadcast_to(jnp.eye(5), (2, 3, 5, 5))  # makes the output equal to the weights
    weights = attend(q, k, v, None)
    drop = functools.partial(attend, q, k, v, None, dropout_rate=0.5)
    dropped = np.stack([drop(key=jax.random.key(i)) for i in range(20)])
    assert (dropped == 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, 2 * weights), atol=1e-6)


@pytest.mark.parametrize(
    ('backend', 'dtype', 'lengths', 'width', 'expected'),
    [
        ('gpu', 'bfloat16', (128, 128), 64, 'cudnn'),
        ('gpu', 'bfloat16', (21, 128), 64, 'cudnn'),  # a last layer with 1+20 output positions
        ('gpu', 'bfloat16', (1, 128), 64, 'xla'),
        ('gpu', 'float32', (128, 128), 64, 'xla'),
        ('gpu', 'bfloat16', (128, 128), 20, 'xla'),
        ('cpu', 'bfloat16', (128, 128), 64, 'xla'),
        ('tpu', 'bfloat16', (128, 256), 64, 'splash'),
        ('tpu', 'bfloat16', (21, 128), 64, 'xla'),
    ],
)
def test_auto_chooses_a_supported_kernel(monkeypatch, backend, dtype, lengths, width, expected):
    gpu = types.SimpleNamespace(compute_capability='9.0')
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(jax, 'devices', lambda: [gpu])
    q, k = (jax.ShapeDtypeStruct((2, 4, length, width), dtype) for length in lengths)
    assert attention_kernels.choose('auto', q, k, None)[0] == expected
