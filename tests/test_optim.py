"""Schedules at key steps, and optimizers compared with Optax and with published formulas."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bert_jax import optim
from bert_jax.core import partitioning, stacking
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.module import Bias, NormScale
from bert_jax.optim import OptimConfig
from bert_jax.train import state as state_lib
from tests.modeling import tiny

PEAK, TOTAL, WARMUP = 2e-3, 100, 10


def relative_rates(steps, total=TOTAL, **changes):
    config = OptimConfig(**{'learning_rate': PEAK, 'warmup': WARMUP, **changes})
    schedule = optim.make_schedule(config, total)
    return [float(schedule(jnp.asarray(step))) / PEAK for step in steps]


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(schedule='linear'), {10: 1, 55: 0.5, 91: 0.1, 100: 0, 120: 0}),
        (dict(schedule='linear', end_fraction=0.2), {10: 1, 55: 0.6, 100: 0.2, 120: 0.2}),
        (dict(schedule='cosine'), {10: 1, 40: 0.75, 55: 0.5, 70: 0.25, 100: 0, 120: 0}),
        (dict(schedule='cosine', end_fraction=0.2), {10: 1, 40: 0.8, 55: 0.6, 100: 0.2}),
        (dict(schedule='constant'), {10: 1, 50: 1, 100: 1}),
        (dict(schedule='wsd', decay=20), {10: 1, 50: 1, 80: 1, 85: 0.75, 90: 0.5, 100: 0, 120: 0}),
        (dict(schedule='wsd', decay=0.2, end_fraction=0.5), {10: 1, 80: 1, 90: 0.75, 100: 0.5}),
        (dict(schedule='wsd', decay=0), {10: 1, 100: 1}),
        (
            dict(schedule='wsd', decay=16, decay_shape='1-sqrt'),
            {10: 1, 84: 1, 85: 0.75, 88: 0.5, 93: 0.25, 100: 0, 120: 0},
        ),
        (
            dict(schedule='wsd', decay=16, decay_shape='1-sqrt', end_fraction=0.2),
            {84: 1, 88: 0.6, 100: 0.2, 120: 0.2},
        ),
    ],
    ids=str,
)
def test_schedule_after_warmup(changes, expected):
    assert relative_rates([0, 1, 5], **changes) == pytest.approx([0, 0.1, 0.5])
    assert relative_rates(expected, **changes) == pytest.approx(list(expected.values()), abs=1e-6)


def test_schedule_without_warmup_starts_at_peak():
    assert relative_rates([0, 50, 100], warmup=0) == pytest.approx([1, 0.5, 0])


def test_warmup_in_fractions_epochs_examples_or_steps():
    for warmup in (0.1, '2 epochs', '80 examples', '10 steps'):
        config = OptimConfig(learning_rate=1.0, warmup=warmup)
        schedule = optim.make_schedule(config, TOTAL, batch_size=8, examples=40)
        assert [float(schedule(step)) for step in (5, 10, 55)] == pytest.approx([0.5, 1, 0.5])


def test_warmup_and_decay_in_examples_follow_the_batch_size():
    config = OptimConfig(learning_rate=1.0, warmup='60 examples', schedule='wsd', decay='60 examples')
    schedule = optim.make_schedule(config, 40, batch_size=((10, 4), (20, 8), (10, 2)), examples=0)
    # 10 steps of 4 and 3 of 8 for the warmup; the decay has 10 steps of 2 and 5 of 8.
    rates = {0: 0, 13: 1, 14: 1, 25: 1, 26: 14 / 15, 39: 1 / 15, 40: 0}
    assert [float(schedule(step)) for step in rates] == pytest.approx([*rates.values()], abs=1e-6)


@pytest.mark.parametrize('warmup', [100, 150])
def test_warmup_longer_than_run_is_rejected(warmup):
    with pytest.raises(UserError, match=rf'optim\.warmup is {warmup} steps, but the whole run has 100'):
        relative_rates([0], warmup=warmup)
    assert relative_rates([99], warmup=99) == pytest.approx([1])


def test_decay_longer_than_rest_of_run_is_rejected():
    assert relative_rates([10, 100], schedule='wsd', decay=90) == pytest.approx([1, 0])
    with pytest.raises(UserError, match=r'optim\.decay is 91 steps, but only 90 remain'):
        relative_rates([0], schedule='wsd', decay=91)


PARAMS = {
    'blocks/0/mlp/kernel': (4, 6),
    'blocks/0/mlp/bias': (6,),
    'blocks/0/norm/scale': (4,),
    'words': (5, 4),
    'biased/scales': (3,),
}
UNDECAYED = {'blocks/0/mlp/bias', 'blocks/0/norm/scale'}
DECAYS = {*PARAMS} - UNDECAYED


def arrays(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in PARAMS.items()}


def run(tx, steps=3, scale=1.0):
    """Return the parameters after each of a few updates with random gradients."""
    params = jax.tree.map(jnp.asarray, arrays(0))
    state = tx.init(params)

    @jax.jit
    def step(grads, state, params):
        with jax.numpy_dtype_promotion('standard'):  # Optax mixes its integer counts with floats
            updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    history = []
    for i in range(steps):
        grads = jax.tree.map(lambda g: jnp.asarray(g * scale), arrays(i + 1))
        params, state = step(grads, state, params)
        history.append(params)
    return history


def make(axes=None, **changes):
    defaults = dict(learning_rate=0.1, schedule='constant', warmup=0, clip_norm=0.0, weight_decay=0.05)
    return optim.make_optimizer(OptimConfig(**{**defaults, **changes}), TOTAL, UNDECAYED, axes)


def assert_close(a, b, rtol=1e-5):
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-6, err_msg=name)


def test_adamw_equals_optax():
    mask = {name: name in DECAYS for name in PARAMS}
    reference = optax.adamw(0.1, b1=0.8, b2=0.95, eps=1e-4, weight_decay=0.05, mask=mask)
    assert_close(run(make(b1=0.8, b2=0.95, eps=1e-4))[-1], run(reference)[-1])


def original_bert(params, grads, m, v, learning_rate, decay):
    """One update of one parameter by AdamWeightDecayOptimizer of the original BERT."""
    m = 0.9 * m + 0.1 * grads
    v = 0.999 * v + 0.001 * grads**2
    update = m / (np.sqrt(v) + 1e-6) + decay * params
    return params - learning_rate * update, m, v


def test_adamw_without_bias_correction_equals_original_bert():
    history = run(make(bias_correction=False))
    for name, params in arrays(0).items():
        m = v = np.zeros_like(params)
        for i in range(3):
            decay = 0.05 if name in DECAYS else 0.0
            params, m, v = original_bert(params, arrays(i + 1)[name], m, v, 0.1, decay)
            np.testing.assert_allclose(history[i][name], params, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize('bias_correction', [True, False])
def test_weight_decay_shrinks_only_weights(bias_correction):
    choices = dict(bias_correction=bias_correction)
    decayed, free = run(make(**choices), 1)[0], run(make(**choices, weight_decay=0.0), 1)[0]
    for name, start in arrays(0).items():
        shrunk = 0.1 * 0.05 * start if name in DECAYS else 0
        np.testing.assert_allclose(free[name] - decayed[name], shrunk + np.zeros_like(start), atol=1e-6)


def test_learning_rate_follows_schedule():
    params, first, second = arrays(0), *run(make(warmup=2, bias_correction=False, weight_decay=0.0), 2)
    assert_close(first, params)
    whole = run(make(bias_correction=False, weight_decay=0.0), 2)
    for name in PARAMS:
        step = whole[1][name] - whole[0][name]
        np.testing.assert_allclose(second[name] - first[name], step / 2, rtol=1e-4, atol=1e-6)


def test_one_step_of_lamb_equals_paper():
    updated = run(make(name='lamb', b1=0.9, b2=0.99, eps=1e-6), 1)[0]
    for name, w in arrays(0).items():
        g = arrays(1)[name]
        m, v = 0.1 * g / (1 - 0.9), 0.01 * g**2 / (1 - 0.99)
        r = m / (np.sqrt(v) + 1e-6)
        if name in DECAYS:
            r += 0.05 * w
            r *= np.linalg.norm(w) / np.linalg.norm(r)
        np.testing.assert_allclose(updated[name], w - 0.1 * r, rtol=1e-4, atol=1e-6, err_msg=name)


def test_lamb_differs_from_adamw_only_for_decayed_parameters():
    lamb, adamw = run(make(name='lamb'))[-1], run(make())[-1]
    for name in PARAMS:
        assert (abs(lamb[name] - adamw[name]).max() > 1e-3) == (name in DECAYS)


@pytest.mark.parametrize('bias_correction', [True, False])
def test_stable_adamw_equals_algorithm_2(bias_correction):
    """Wortsman et al. 2023, algorithm 2, in NumPy. The third gradient is large, so that its update is clipped."""
    b1, b2, eps, rate, decay = 0.9, 0.95, 1e-4, 0.1, 0.05
    tx = make(name='stable_adamw', b1=b1, b2=b2, eps=eps, bias_correction=bias_correction)
    params = jax.tree.map(jnp.asarray, arrays(0))
    expected = jax.tree.map(np.asarray, params)
    v, u = ({name: np.zeros(shape) for name, shape in PARAMS.items()} for _ in range(2))
    state, clipped = tx.init(params), set()
    for t, scale in enumerate((1.0, 1.0, 30.0, 1.0), start=1):
        grads = {name: g * scale for name, g in arrays(t).items()}
        with jax.numpy_dtype_promotion('standard'):
            updates, state = tx.update(jax.tree.map(jnp.asarray, grads), state, params)
        params = optax.apply_updates(params, updates)
        for name, g in grads.items():
            beta1, beta2 = b1, b2
            if bias_correction:
                beta1, beta2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
            v[name] = beta1 * v[name] + (1 - beta1) * g
            u[name] = beta2 * u[name] + (1 - beta2) * g**2
            rms = np.sqrt(np.mean(g**2 / np.maximum(u[name], eps**2)))
            if rms > 1.01:
                clipped.add(t)
            eta = rate / max(1, rms)
            shrunk = eta * decay * expected[name] if name in DECAYS else 0
            expected[name] = expected[name] - shrunk - eta * v[name] / (np.sqrt(u[name]) + eps)
        assert_close(params, expected, rtol=1e-4)
    assert 3 in clipped


AXES = {
    'blocks/0/attention/qkv/kernel': ('embed', None, 'heads', 'kv'),
    'blocks/0/attention/out/kernel': ('heads', 'kv', 'embed'),
    'blocks/0/attention/out/bias': ('embed',),
    'blocks/0/attention/qkv/bias': (None, 'heads', 'kv'),
    'blocks/0/mlp/up/kernel': ('embed', 'mlp'),
    'token_embedding': ('vocab', 'embed'),
    'head/kernel': ('embed', None),
}
SHAPES = ((8, 3, 2, 4), (2, 4, 8), (8,), (3, 2, 4), (8, 20), (30, 8), (8, 5))


def orthogonalize(matrix):
    """Newton-Schulz iteration of Jordan et al. 2024, with more rows than columns transposed as there."""
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_equals_its_algorithm_for_matrices_and_adamw_for_the_rest():
    rng = np.random.default_rng(0)
    params, *grads = (
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in zip(AXES, SHAPES, strict=True)}
        for _ in range(3)
    )
    config = OptimConfig('muon', learning_rate=0.1, schedule='constant', warmup=0, clip_norm=0.0)
    results = {}
    for name in ('muon', 'adamw'):
        tx = optim.make_optimizer(dataclasses.replace(config, name=name), TOTAL, {'blocks/0/mlp'}, AXES)
        new, state = jax.tree.map(jnp.asarray, params), tx.init(params)
        for g in grads:
            with jax.numpy_dtype_promotion('standard'):
                updates, state = tx.update(jax.tree.map(jnp.asarray, g), state, new)
            new = optax.apply_updates(new, updates)
        results[name] = new
    matrices = {'blocks/0/attention/qkv/kernel', 'blocks/0/attention/out/kernel', 'blocks/0/mlp/up/kernel'}
    for name in {*AXES} - matrices:
        np.testing.assert_array_equal(results['muon'][name], results['adamw'][name], err_msg=name)

    def expected(path, select, width):
        """Update the matrix `select(array)`, [width, n], twice."""
        w, m = select(params[path]).reshape(width, -1), 0.0
        for t, g in enumerate((select(g[path]).reshape(width, -1) for g in grads), start=1):
            m = 0.95 * m + 0.05 * g
            nesterov = 0.95 * m / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
            update = orthogonalize(nesterov) * 0.2 * np.sqrt(max(w.shape))
            w = w - 0.1 * (update + 0.01 * w)
        return w

    muon = results['muon']
    for i in range(3):  # queries, keys and values are three matrices
        path = 'blocks/0/attention/qkv/kernel'
        found = np.asarray(muon[path][:, i]).reshape(8, -1)
        np.testing.assert_allclose(found, expected(path, lambda x, i=i: x[:, i], 8), rtol=1e-3, atol=1e-4)
    for path, width in (('blocks/0/attention/out/kernel', 8), ('blocks/0/mlp/up/kernel', 8)):
        found = np.asarray(muon[path]).reshape(width, -1)
        np.testing.assert_allclose(found, expected(path, lambda x: x, width), rtol=1e-3, atol=1e-4)


def test_muon_without_matrices_is_rejected():
    with pytest.raises(UserError, match=r'optim\.name=muon has no weight matrix .* Set optim\.name=adamw'):
        make(AXES, name='muon').init({'token_embedding': jnp.ones((30, 8))})


@pytest.mark.parametrize('make_model', [BertForPretraining, BartForSeq2Seq], ids=['bert', 'bart'])
def test_matrices_of_muon_are_the_kernels_of_the_blocks(make_model):
    config = tiny.config(make_model, gated_mlp=True)
    _, shapes, axes = module.abstract(functools.partial(make_model, config))
    found = optim.hidden_matrices(axes)
    assert found.keys() == {path for path in axes if '/blocks/' in path and path.endswith('/kernel')}
    for path, (embed, others) in found.items():
        assert [shapes[path].shape[i] for i in embed] == [config.width], path
        assert math.prod(shapes[path].shape[i] for i in others) in (config.width, config.mlp_width), path


@pytest.mark.parametrize('name', ['adamw', 'lamb', 'stable_adamw', 'muon'])
def test_a_stacked_parameter_is_updated_as_its_layers(name):
    rng = np.random.default_rng(0)
    layers = {
        f'blocks/{i}/mlp/kernel': jnp.asarray(rng.normal(0, 10.0**i, (4, 6)), jnp.float32) for i in range(3)
    }
    grads = {path: jnp.asarray(rng.normal(size=(4, 6)), jnp.float32) for path in layers}
    path = 'blocks/0:3:1/mlp/kernel'

    def update(grads, params):
        axes = {p: (*[None] * stacking.is_stacked(p), 'embed', 'mlp') for p in params}
        tx = make(axes, name=name, clip_norm=0.1)
        with jax.numpy_dtype_promotion('standard'):
            return tx.update(grads, tx.init(params), params)[0]

    stacked = update(stacking.stack(grads, [path]), stacking.stack(layers, [path]))
    assert_close(stacking.unstack(stacked), update(grads, layers))


def test_gradients_are_clipped_to_global_norm():
    norm = float(optax.global_norm(arrays(1)))
    choices = dict(bias_correction=False, weight_decay=0.0, eps=0.5)
    clipped, by_hand = make(**choices, clip_norm=0.3), make(**choices)
    assert_close(run(clipped, 1)[0], run(by_hand, 1, scale=0.3 / norm)[0])
    assert_close(run(clipped, 1, scale=0.2 / norm)[0], run(by_hand, 1, scale=0.2 / norm)[0])


class Unusual(nnx.Module):
    """Parameters whose names do not tell their role."""

    def __init__(self, config, rngs):
        self.offset = Bias(jnp.ones(config.width), axes=('embed',))
        self.gain = NormScale(jnp.ones(config.width), axes=('embed',))
        self.bias = nnx.Param(jnp.ones((3, config.width)), axes=(None, 'embed'))


NAMED_BIAS_OR_SCALE = re.compile('(bias|scale)$')


@pytest.mark.parametrize('name', ['adamw', 'lamb', 'stable_adamw', 'muon'])
@pytest.mark.parametrize(
    ('make_model', 'settings', 'is_exempt'),
    [
        (BartForSeq2Seq, {}, NAMED_BIAS_OR_SCALE.search),
        (BertForPretraining, tiny.T5, NAMED_BIAS_OR_SCALE.search),
        (Unusual, {}, lambda path: path in ('offset', 'gain')),
    ],
    ids=['bart', 'bert', 'unusual'],
)
def test_biases_and_norm_scales_of_models_are_not_decayed(name, make_model, settings, is_exempt):
    if (make_model, name) == (Unusual, 'muon'):
        pytest.skip('has no blocks')
    config = OptimConfig(name, learning_rate=0.1, schedule='constant', warmup=0, weight_decay=0.5)
    partitioner = partitioning.make(MeshConfig(), jax.devices()[:1])
    make = functools.partial(make_model, tiny.config(make_model, **settings))
    layout = state_lib.make_layout(make, config, TOTAL, partitioner)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), layout.shapes.params)

    @jax.jit
    def update(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        with jax.numpy_dtype_promotion('standard'):
            updates, _ = layout.tx.update(zeros, layout.tx.init(params), params)
        return jax.tree.map(jnp.max, updates)

    # Gradients are zero, so only weight decay changes a parameter.
    exempt = {path for path, change in update(params).items() if change == 0}
    assert exempt == {path for path in params if is_exempt(path)}
    assert exempt
    if settings:
        assert 'bert/layers/relative_bias/table' in {*params} - exempt


@pytest.mark.parametrize(
    ('setting', 'limits'),
    [
        (dict(b1=1.0), 'optim.b1=1.0 must be from 0 to 0.999999'),
        (dict(b2=1.0), 'optim.b2=1.0 must be from 0 to 0.999999'),
        (dict(b2=1 - 1e-9), r'optim\.b2=0.999999999 must be from 0 to 0.999999'),
        (dict(eps=0.0), r'optim\.eps=0.0 must be at least 1e-30'),
        (dict(warmup='abc'), r"optim\.warmup='abc' is not a duration"),
        (dict(decay='1.5 steps'), r"optim\.decay='1.5 steps' is not a duration"),
        (dict(muon_momentum=1.0), r'optim\.muon_momentum=1.0 must be from 0 to 0.999999'),
        (dict(muon_rms=-1.0), r'optim\.muon_rms=-1.0 must be'),
        (
            dict(decay_shape='1-sqrt'),
            r"optim\.decay_shape='1-sqrt' has no effect on optim\.schedule='linear'",
        ),
    ],
    ids=str,
)
def test_settings_that_make_no_update_or_nan_are_rejected(setting, limits):
    with pytest.raises(UserError, match=limits):
        OptimConfig(**setting)


@pytest.mark.parametrize('name', ['adamw', 'stable_adamw'])
@pytest.mark.parametrize('bias_correction', [True, False])
@pytest.mark.parametrize('limit', [dict(b1=0.999999), dict(b2=0.999999), dict(eps=1e-30)], ids=str)
def test_updates_at_the_limits_are_finite(limit, bias_correction, name):
    tx = make(name=name, bias_correction=bias_correction, **limit)
    params = {'words': jnp.ones(2), 'blocks/0/mlp/bias': jnp.zeros(2)}
    grads = {'words': jnp.array([0.0, 1.0]), 'blocks/0/mlp/bias': jnp.array([0.0, -1.0])}
    with jax.numpy_dtype_promotion('standard'):
        updates, _ = tx.update(grads, tx.init(params), params)
    assert all(jnp.isfinite(u).all() for u in updates.values())


def test_frozen_prefixes_select_the_trained_paths():
    paths = ['bert/a', 'bert/b/c', 'classifier/bias']
    assert optim.trained_paths(OptimConfig(), paths) == {*paths}
    assert optim.trained_paths(OptimConfig(frozen=('bert/b/', 'classifier/')), paths) == {'bert/a'}
    blocks = [f'bert/blocks/{i}/bias' for i in range(12)]
    assert optim.trained_paths(OptimConfig(frozen=('bert/blocks/1',)), blocks) == {*blocks} - {blocks[1]}
    with pytest.raises(UserError, match=r"optim\.frozen='bret/' matches no parameter: did you mean 'bert/'"):
        optim.trained_paths(OptimConfig(frozen=('bert/a', 'bret/')), paths)
    with pytest.raises(UserError, match='leaves no parameter to train'):
        optim.trained_paths(OptimConfig(frozen=('bert/', 'classifier/')), paths)


def test_every_parameter_has_two_moments_of_its_shape():
    state = make(bias_correction=False).init(jax.tree.map(jnp.asarray, arrays(0)))
    shapes = [s.shape for s in jax.tree.leaves(state) if s.ndim]
    assert sorted(shapes) == sorted(2 * list(PARAMS.values()))


@pytest.mark.parametrize('limit', [0.5, 5.0, 1e3])
def test_clipping_equals_optax(limit):
    grads = {'a': jnp.array([3.0, -4.0]), 'b': jnp.array([[12.0]])}
    ours, theirs = (
        f(limit).update(grads, optax.EmptyState())[0]
        for f in (optim.clip_by_global_norm, optax.clip_by_global_norm)
    )
    for name in grads:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)
    assert float(optax.global_norm(ours)) == pytest.approx(min(limit, 13))
    zeros = jax.tree.map(jnp.zeros_like, grads)
    np.testing.assert_array_equal(
        optim.clip_by_global_norm(limit).update(zeros, optax.EmptyState())[0]['a'], 0
    )
