"""Blocks: their variants, ways to run them, rotary positions, attention and dropout."""

import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.modeling import attention, layers, masks, module
from bert_jax.modeling.attention import attend
from bert_jax.modeling.dropout import dropout, fold
from tests.modeling import tiny


@pytest.mark.parametrize(
    'change',
    [
        dict(norm='pre'),
        dict(norm_kind='rms'),
        dict(rotary=10_000.0),
        dict(gated=True),
        dict(bias=False),
        dict(activation='gelu_tanh'),
        dict(activation='relu'),
        dict(activation='silu'),
        dict(norm_eps=0.1),
    ],
    ids=str,
)
def test_every_variant_runs_and_differs(change):
    default, variant = (tiny.model(layers=1, **c)(*tiny.texts()) for c in ({}, change))
    assert np.isfinite(variant.hidden_states[-1]).all()
    assert abs(default.hidden_states[-1] - variant.hidden_states[-1]).max() > 1e-6


def test_variants_have_the_parameters_that_they_need_and_no_others():
    default, modern = (set(tiny.parts(**change)[1]) for change in ({}, tiny.MODERN))
    assert not any(name.endswith('bias') for name in modern)
    new = {f'layers/blocks/{i}/mlp/gate/kernel' for i in range(2)} | {'layers/final_norm/scale'}
    assert modern - default == new
    assert default - modern == {name for name in default if name.endswith('bias')} | {'positions'}


def test_pre_norm_leaves_the_residual_alone_and_normalises_the_end():
    graph, params = tiny.parts(norm='pre', layers=3)
    still = {name: p * 0 if '/out/' in name or '/down/' in name else p for name, p in params.items()}
    h = tiny.runner(graph, still)(*tiny.texts()).hidden_states
    np.testing.assert_array_equal(h[0], h[2])
    final = {name: p for name, p in params.items() if 'final_norm' in name}
    x = np.asarray(h[2])
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    expected = x * final['layers/final_norm/scale'] + final['layers/final_norm/bias']
    np.testing.assert_allclose(h[3], expected, atol=1e-5)


@pytest.mark.parametrize('kind', ['layer', 'rms'])
def test_norms_equal_their_formula(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (4, 32)).astype(np.float32)
    norm = layers.Norm(tiny.config(norm_kind=kind, norm_eps=0.1), nnx.Rngs(0))
    norm.scale[...] = jnp.full(32, 2.0)
    if kind == 'layer':
        norm.bias[...] = jnp.full(32, 5.0)
        expected = 2 * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1) + 5
    else:
        assert norm.bias is None
        expected = 2 * x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-5)


def test_norms_of_half_precision_are_computed_in_float32():
    x = np.random.default_rng(0).normal(1000, 1, (4, 32)).astype(np.float32)
    norm = layers.Norm(tiny.config(), nnx.Rngs(0))
    half = norm(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    exact = np.asarray(norm(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32)))
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=0.01, atol=0.01)


def test_a_dense_layer_and_its_gradients_are_matrix_products():
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 12), (5, 6)))
    made = layers.Dense(tiny.config(), {'heads': 3, 'kv': 4}, {'mlp': 6}, nnx.Rngs(0))
    graph, params = module.split(made)
    kernel = np.asarray(params['kernel']).reshape(12, 6)
    y, back = jax.vjp(lambda p, x: module.merge(graph, p)(x), params, x)
    grads, dx = back(g)
    np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
    np.testing.assert_allclose(dx, g @ kernel.T, atol=1e-5)
    np.testing.assert_allclose(grads['kernel'].reshape(12, 6), x.T @ g, atol=1e-5)
    np.testing.assert_allclose(grads['bias'], g.sum(0), atol=1e-5)


def value_and_gradient(**changes):
    """Hidden states of a packed row with dropout, and the gradient of a weighted sum of the last."""
    graph, params = tiny.parts(norm='pre', dropout=0.3, attention_dropout=0.3, **changes)
    tokens, segments = tiny.texts()
    valid = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [1] * 9])

    def loss(params):
        hidden = module.merge(graph, params)(tokens, segments, valid, jax.random.key(3)).hidden_states
        return (hidden[-1] * np.cos(np.arange(tiny.WIDTH, dtype=np.float32))).sum(), hidden

    return jax.value_and_grad(loss, has_aux=True), params


@functools.cache
def computed(**changes):
    f, params = value_and_gradient(**changes)
    (_, hidden), grads = jax.jit(f)(params)
    return hidden, grads


def primitives(**changes):
    f, params = value_and_gradient(**changes)
    return [eqn.primitive.name for eqn in tiny.equations(jax.make_jaxpr(f)(params).jaxpr)]


@pytest.mark.parametrize(
    'change',
    [dict(scan=True), dict(remat='dots'), dict(remat='full'), dict(scan=True, remat='full')],
    ids=str,
)
def test_scan_and_remat_change_neither_values_nor_gradients(change):
    hidden, grads = computed()
    other_hidden, other_grads = computed(**change)
    for a, b in zip(hidden, other_hidden, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for name, a in grads.items():
        np.testing.assert_allclose(a, other_grads[name], atol=1e-3, err_msg=name)


def test_scan_is_one_loop_over_the_layers():
    unrolled, scanned = primitives(layers=4), primitives(layers=4, scan=True)
    assert 'scan' not in unrolled
    assert 'scan' in scanned
    assert scanned.count('dot_general') < unrolled.count('dot_general') / 2


def test_remat_computes_again_what_it_says():
    products = {}
    for remat in ('none', 'dots', 'full'):
        found = primitives(remat=remat)
        assert any(name in ('checkpoint', 'remat', 'remat2') for name in found) == (remat != 'none')
        products[remat] = found.count('dot_general')
    assert products['none'] < products['dots'] < products['full']


def test_rotary_scores_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 2, 1, 8)), jnp.float32) for _ in range(2))

    def score(i, j):
        at = [layers.rotate(x, jnp.array([[p]]), 100.0) for x, p in ((q, i), (k, j))]
        return np.asarray((at[0] * at[1]).sum(-1))

    np.testing.assert_allclose(score(0, 3), score(20, 23), atol=1e-5)
    np.testing.assert_allclose(score(0, 0), (q * k).sum(-1), atol=1e-6)
    assert abs(score(0, 3) - score(0, 4)).min() > 1e-3
    assert abs(score(0, 3) - score(3, 0)).min() > 1e-3


def test_rotary_turns_each_pair_by_its_own_angle():
    x = jnp.ones((1, 1, 1, 4))
    turned = np.asarray(layers.rotate(x, jnp.array([[3]]), 100.0))[0, 0, 0]
    angles = np.array([3.0, 0.3])
    expected = np.concatenate([np.cos(angles) - np.sin(angles), np.cos(angles) + np.sin(angles)])
    np.testing.assert_allclose(turned, expected, atol=1e-6)
    assert layers.rotate(x.astype(jnp.bfloat16), jnp.array([[3]]), 100.0).dtype == jnp.bfloat16


@pytest.mark.parametrize('rotary', [0.0, 10_000.0])
def test_attention_knows_positions_by_rotation_alone_and_relatively(rotary):
    attention = layers.Attention(tiny.config(rotary=rotary, init_std=0.5), nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 32)), jnp.float32)
    run = jax.jit(lambda positions: attention(x, None, positions, None))
    base = np.arange(6)[None]
    np.testing.assert_allclose(run(base), run(base + 30), atol=1e-4)
    assert (abs(run(base) - run(base[:, ::-1])).max() > 1e-2) == bool(rotary)


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


def test_attention_of_half_precision_has_a_float32_softmax():
    q, k, v = qkv(jnp.bfloat16)
    found = attend(q, k, v, None)
    assert found.dtype == jnp.bfloat16
    exact = attend(*(x.astype(jnp.float32) for x in (q, k, v)), None)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.03)
    equations = tiny.equations(jax.make_jaxpr(lambda *x: attend(*x, None))(q, k, v).jaxpr)
    assert {str(e.invars[0].aval.dtype) for e in equations if e.primitive.name == 'exp'} == {'float32'}


def test_masks_show_real_tokens_or_those_of_the_same_text():
    found = masks.padding(jnp.array([[True, True, False]])).array(3, 3)
    np.testing.assert_array_equal(found, [[[[True, True, False]]]])
    np.testing.assert_array_equal(
        masks.padding(jnp.array([[1, 1, 2, 0]])).array(4, 4)[0, 0],
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    )


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_dropout_zeroes_its_share_and_scales_up_the_rest(rate):
    y = np.asarray(dropout(jnp.full((400, 400), 3.0), rate, jax.random.key(0)))
    assert (y == 0).mean() == pytest.approx(rate, abs=0.01)
    np.testing.assert_allclose(y[y != 0], 3 / (1 - rate), rtol=1e-6)
    assert dropout(jnp.ones(3, jnp.bfloat16), rate, jax.random.key(0)).dtype == jnp.bfloat16


def test_no_key_or_no_rate_is_no_dropout():
    x = jnp.ones(1000)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert fold(None, 3) is None


@pytest.mark.parametrize('rates', [dict(dropout=0.2), dict(attention_dropout=0.2)], ids=str)
def test_a_model_drops_by_its_key_alone(rates):
    run, texts = tiny.model(**rates), tiny.texts()
    none, plain = run(*texts).pooled, tiny.model()(*texts).pooled
    np.testing.assert_allclose(none, plain, atol=1e-5)
    one, same, other = (run(*texts, key=jax.random.key(seed)).pooled for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 1e-3
    assert abs(one - none).max() > 1e-3


@pytest.mark.parametrize('scan', [False, True])
def test_each_sublayer_of_each_layer_drops_on_its_own(scan):
    rate = 0.5
    graph, params = tiny.parts(norm='pre', layers=3, dropout=rate, scan=scan)
    constant = {
        'attention/out/kernel': 0.0,
        'attention/out/bias': 1.0,
        'mlp/down/kernel': 0.0,
        'mlp/down/bias': 1.0,
    }
    for name, p in params.items():
        for end, value in constant.items():
            if name.endswith(end):
                params = {**params, name: jnp.full(p.shape, value)}
    h = tiny.runner(graph, params)(*tiny.texts(16, 40), key=jax.random.key(0)).hidden_states
    kept = [np.round((b - a) * (1 - rate)).astype(int) for a, b in itertools.pairwise(h[:-1])]
    for counts in kept:  # of two sublayers: both drop, one does, or none
        np.testing.assert_allclose(np.bincount(counts.ravel()) / counts.size, [0.25, 0.5, 0.25], atol=0.02)
    assert (kept[0] == kept[1]).mean() == pytest.approx(0.375, abs=0.02)
    assert (h[0] == 0).mean() == pytest.approx(rate, abs=0.02)


def test_dropped_attention_is_dropped_by_weight():
    q, k, _ = qkv()
    v = jnp.broadcast_to(jnp.eye(5), (2, 3, 5, 5))  # so that the output is the weights
    weights = attend(q, k, v, None)
    drop = functools.partial(attend, q, k, v, None, rate=0.5)
    dropped = np.stack([drop(key=jax.random.key(i)) for i in range(20)])
    assert (dropped == 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, 2 * weights), atol=1e-6)


@pytest.mark.parametrize(
    ('backend', 'dtype', 'lengths', 'width', 'wanted'),
    [
        ('gpu', 'bfloat16', (128, 128), 64, 'cudnn'),
        ('gpu', 'bfloat16', (21, 128), 64, 'xla'),  # the last layer, at 20 positions and the first
        ('gpu', 'bfloat16', (128, 77), 64, 'xla'),
        ('gpu', 'float32', (128, 128), 64, 'xla'),
        ('gpu', 'bfloat16', (128, 128), 20, 'xla'),
        ('cpu', 'bfloat16', (128, 128), 64, 'xla'),
        ('tpu', 'bfloat16', (128, 256), 64, 'splash'),
        ('tpu', 'bfloat16', (21, 128), 64, 'xla'),
    ],
)
def test_each_device_has_what_it_can(monkeypatch, backend, dtype, lengths, width, wanted):
    gpu = types.SimpleNamespace(compute_capability='9.0')
    monkeypatch.setattr(attention.jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(attention.jax, 'devices', lambda: [gpu])
    q, k = (jax.ShapeDtypeStruct((2, 4, length, width), dtype) for length in lengths)
    assert attention._best(q, k, None) == wanted
