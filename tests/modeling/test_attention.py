"""Attention kernels: equal to plain attention, interpreted or compiled for absent devices."""

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import attention, attention_kernels, local_attention, masks, module
from bert_jax.modeling.attention import attend
from bert_jax.modeling.masks import Mask
from tests.modeling import attention_cases, tiny
from tests.runs import ROOT

B, T = 8, 128
PACKED = np.sort(np.random.default_rng(1).integers(1, 4, (B, T))).astype(np.int32)
PACKED[:, 120:] = 0
REAL = np.arange(T) < np.linspace(60, T, B)[:, None]


def qkv(tq=T, tk=T, heads=4, kv_heads=4):
    rng = np.random.default_rng(0)
    shapes = (B, heads, tq, 32), (B, kv_heads, tk, 32), (B, kv_heads, tk, 32)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


MASKS = {
    'none': None,
    'padding': masks.padding(jnp.asarray(REAL)),
    'packed': masks.padding(jnp.asarray(PACKED)),
    'causal': masks.causal(),
    'causal, packed': masks.causal(jnp.asarray(PACKED)),
}
LOCAL_MASKS = {
    'window': Mask(window=20),
    'window, padding': dataclasses.replace(masks.padding(jnp.asarray(REAL)), window=20),
    'window, packed': dataclasses.replace(masks.padding(jnp.asarray(PACKED)), window=20),
    'window, causal': Mask(causal=True, window=20),
    'window, causal, packed': dataclasses.replace(masks.causal(jnp.asarray(PACKED)), window=20),
}


def splash_and_xla(mask, tensors, is_real):
    """Pairs of output and gradients of splash and of plain attention; padding queries are ignored."""

    def run(implementation):
        def f(q, k, v):
            out = attend(q, k, v, mask, implementation=implementation)
            return (jnp.sin(out) * is_real).sum(), out

        grads, out = jax.jit(jax.grad(f, argnums=(0, 1, 2), has_aux=True))(*tensors)
        return [out * is_real, *grads]

    return zip(run('splash'), run('xla'), strict=True)


NOTHING = np.zeros((B, T), np.int32)  # rows of padding only


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('implementation', ['xla', 'splash'])
@pytest.mark.parametrize(
    'mask',
    [
        masks.padding(jnp.asarray(NOTHING, bool)),
        masks.padding(jnp.asarray(NOTHING)),
        masks.causal(jnp.asarray(NOTHING)),
        jnp.zeros((B, 1, 1, T), bool),
        jnp.full((B, 1, T, T), jnp.finfo(jnp.float32).min),
    ],
    ids=['padding', 'packed', 'causal', 'boolean', 'additive'],
)
def test_rows_of_padding_have_finite_outputs_and_gradients(mask, implementation, dtype):
    def f(q, k, v):
        return attend(q, k, v, mask, implementation=implementation).astype(jnp.float32).sum()

    tensors = [x.astype(dtype) for x in qkv()]
    value, grads = jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(*tensors)
    assert all(bool(jnp.isfinite(x).all()) for x in (value, *grads))


@pytest.fixture
def cudnn_calls(monkeypatch):
    """Options of the calls of cuDNN's attention; the target device is an absent GPU, and XLA computes the results."""
    calls, xla = [], jax.nn.dot_product_attention

    def dot_product_attention(q, k, v, implementation, **options):
        assert implementation == 'cudnn'
        calls.append(dict(options))
        bias = options.pop('bias', None)
        inputs = [x if x is None else x.astype(jnp.float32) for x in (q, k, v, bias)]
        exact = xla(*inputs, implementation='xla', **options)
        return exact.astype(q.dtype)

    monkeypatch.setattr(jax.nn, 'dot_product_attention', dot_product_attention)
    attention._log_once.cache_clear()
    with partitioning.use(GPU):
        yield calls
    attention._log_once.cache_clear()


GPU = partitioning.make_abstract(MeshConfig(), 1, AbstractDevice('NVIDIA H200', None, 'gpu'))
TPU = partitioning.make_abstract(MeshConfig(), 1, AbstractDevice('TPU v5 lite', 1, 'tpu'))
OPTIONS_OF_CUDNN = {
    'none': set(),
    'padding': {'is_causal', 'key_value_seq_lengths'},
    'padding, few queries': {'is_causal', 'key_value_seq_lengths'},
    'causal': {'is_causal'},
    'causal, padding': {'is_causal', 'key_value_seq_lengths'},
    'window, wide': {'mask'},
    'window, causal, padding': {'is_causal', 'local_window_size'},
    'packed, grouped heads': {'mask'},
    'packed, causal': {'mask'},
    'bias, packed': {'bias'},
}


@pytest.mark.parametrize('kind', OPTIONS_OF_CUDNN)
def test_options_of_cudnn_mean_the_mask(kind, cudnn_calls):
    """The options that cuDNN gets, computed by XLA, give output and gradients of plain attention."""
    case = attention_cases.make_case(kind, jnp.bfloat16, 3, 4, 64, 16)
    run = functools.partial(attention_cases.run.__wrapped__, implementation='auto')
    ours = jax.jit(run)(case.arrays, case.mask, case.is_real)
    assert [set(options) for options in cudnn_calls] == [OPTIONS_OF_CUDNN[kind]]
    arrays = [x.astype(jnp.float32) for x in case.arrays]
    exact = attention_cases.run(arrays, case.mask, case.is_real, 'xla', in_float32=True)
    for a, b in zip(ours, exact, strict=True):
        assert jnp.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=0.03 * float(jnp.abs(b).max()))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_bias_of_cudnn_is_finite(cudnn_calls, dtype):
    bias = jnp.full((B, 1, T, T), jnp.finfo(jnp.float32).min).at[..., 0].set(-1.5)
    attend(*(x.astype(dtype) for x in qkv()), bias)
    (options,) = cudnn_calls
    assert options['bias'].dtype == dtype
    assert jnp.isfinite(options['bias']).all()
    assert (options['bias'][..., 0] == -1.5).all()


def test_cudnn_attends_to_one_key_in_rows_of_padding(cudnn_calls):
    """The softmax over no key is NaN in cuDNN."""
    valid = jnp.arange(T) < jnp.asarray([[0], [1], [5], [T]])
    attend(*(x[:4].astype(jnp.bfloat16) for x in qkv()), masks.padding(valid))
    (options,) = cudnn_calls
    np.testing.assert_array_equal(options['key_value_seq_lengths'], [1, 1, 5, T])


LONG = jnp.ones((1, 512), bool)
PACKED_LONG = masks.padding(jnp.ones((1, 512), jnp.int32))


@pytest.mark.parametrize(
    ('device', 'expected', 'settings'),
    [
        (GPU, 'model.attention_dropout=0.1. Set it to 0', dict(dropout_rate=0.1)),
        (GPU, 'model.dtype=float32. Set it to bfloat16', dict(dtype=jnp.float32)),
        (GPU, 'odd lengths. Set data.length to an even number', dict(length=513, mask=PACKED_LONG)),
        (GPU, 'a head width of 20', dict(width=20)),
        (GPU, 'model.attention_implementation=xla. Set it to auto', dict(implementation='xla')),
        (GPU, 'attention weights are recorded', dict(records=True)),
        (GPU, 'Compare the speed of model.attention_implementation=pallas', dict(mask=PACKED_LONG)),
        (GPU, 'cuDNN reads relative positions from an array', dict(mask=jnp.zeros((1, 2, 512, 512)))),
        (GPU, 'Lower model.window', dict(mask=Mask(window=300))),
        (GPU, None, dict(mask=masks.padding(LONG))),
        (GPU, None, dict(mask=masks.causal(LONG))),
        (GPU, None, dict(mask=PACKED_LONG, implementation='pallas')),
        (GPU, None, dict(mask=Mask(window=64))),
        (GPU, None, dict(dtype=jnp.float32, length=256)),
        (TPU, 'model.attention_dropout=0.1. Set it to 0', dict(dropout_rate=0.1)),
        (TPU, None, dict(length=520)),
        (TPU, 'splash attention does not support a bias', dict(mask=jnp.zeros((1, 2, 512, 512)))),
        (TPU, None, dict(mask=PACKED_LONG)),
        (None, None, dict(dropout_rate=0.1)),
    ],
)
def test_log_says_why_scores_of_long_rows_are_stored(cudnn_calls, caplog, device, expected, settings):
    settings = dict(length=512, width=64, dtype=jnp.bfloat16, mask=None, records=False) | settings
    length, width, dtype, mask, records = (
        settings.pop(k) for k in ('length', 'width', 'dtype', 'mask', 'records')
    )
    mask = jax.tree.map(lambda x: jnp.ones((1, length), x.dtype) if x.ndim == 2 else x, mask)
    x = jax.ShapeDtypeStruct((1, 2, length, width), dtype)

    def f(q, k, v):
        with attention.record_weights(records):
            return attend(q, k, v, mask, key=jax.random.key(0), **settings)

    caplog.set_level('INFO')
    device = device or partitioning.make_abstract(MeshConfig(), 1)
    with partitioning.use(device):
        for _ in range(2):  # as for two layers
            shape = jax.eval_shape(f, x, x, x)
    assert shape.shape == x.shape
    if expected is None:
        assert not caplog.messages
    else:
        (line,) = caplog.messages
        assert expected in line
        assert line.startswith('Attention over rows of 512 tokens or more stores ')


@pytest.mark.parametrize(
    ('capability', 'width', 'expected'),
    [
        ('7.5', 64, 'xla'),
        ('8.0', 128, 'cudnn'),
        ('8.9', 256, 'xla'),
        ('10.0', 256, 'cudnn'),
        ('gfx90a', 64, 'xla'),
    ],
)
def test_cudnn_depends_on_the_generation_of_the_gpu(monkeypatch, capability, width, expected):
    monkeypatch.setattr(jax, 'devices', lambda: [types.SimpleNamespace(compute_capability=capability)])
    x = jax.ShapeDtypeStruct((2, 4, 128, width), jnp.bfloat16)
    with partitioning.use(GPU):
        assert attention_kernels.choose('auto', x, x, None)[0] == expected


@pytest.mark.parametrize('valid', [REAL, PACKED], ids=['padding', 'packed'])
def test_losses_with_pallas_equal_those_of_plain_attention(valid):
    """What the Pallas kernel computes for padding changes neither losses nor gradients."""
    tokens, segments = (jnp.asarray(x) for x in tiny.tokens_and_segments(2, T))

    def run(implementation):
        graph, params = tiny.graph_and_params(
            heads=2, layers=2, max_positions=T, attention_implementation=implementation
        )

        def loss(params):
            out = module.merge(graph, params)(tokens, segments, jnp.asarray(valid[:2]))
            is_real = jnp.asarray(valid[:2] != 0, jnp.float32)[..., None]
            return (jnp.sin(out.hidden_states[-1]) * is_real).sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    for a, b in zip(*(jax.tree.leaves(run(i)) for i in ('pallas', 'xla')), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4 * float(jnp.abs(b).max()) + 1e-5)


@pytest.mark.parametrize('name', [*MASKS, *LOCAL_MASKS])
def test_splash_equals_plain_attention(name):
    documents = PACKED if 'packed' in name else REAL if 'padding' in name else np.ones((B, T))
    is_real = jnp.asarray(documents != 0, jnp.float32)[:, None, :, None]
    for a, b in splash_and_xla({**MASKS, **LOCAL_MASKS}[name], qkv(), is_real):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('name', [*MASKS, *LOCAL_MASKS])
def test_splash_pads_rows_to_blocks(name):
    def cut(x, axis=1):
        return jax.lax.slice_in_dim(x, 0, 100, axis=axis)

    mask = jax.tree.map(cut, {**MASKS, **LOCAL_MASKS}[name])
    q, k, v = (cut(x, 2) for x in qkv())
    documents = cut(PACKED if 'packed' in name else REAL if 'padding' in name else np.ones((B, T)))
    is_real = jnp.asarray(documents.astype(int) != 0, jnp.float32)[:, None, :, None]

    def run(kernel):
        def f(*tensors):
            return (jnp.sin(kernel(*tensors, mask)) * is_real).sum()

        return jax.jit(jax.value_and_grad(f, (0, 1, 2)))(q, k, v)

    for a, b in zip(*(jax.tree.leaves(run(f)) for f in (attention_kernels.splash, attend)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, abs(b).max()))


def test_splash_supports_cross_attention_and_shared_key_heads():
    mask = masks.padding(jnp.asarray(REAL))
    for a, b in splash_and_xla(mask, qkv(tq=256, heads=4, kv_heads=2), jnp.float32(1)):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('mesh', [MeshConfig('dp'), MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2)])
def test_splash_on_a_mesh(mesh):
    with partitioning.use(partitioning.make(mesh)):
        for a, b in splash_and_xla(
            MASKS['packed'], qkv(), jnp.asarray(PACKED != 0, jnp.float32)[:, None, :, None]
        ):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_splash_rejects_unsupported_shapes_and_masks():
    q, k, _ = qkv()
    assert not attention_kernels._splash_unsupported(q, k, Mask())
    assert not attention_kernels._splash_unsupported(q, k, None)
    assert attention_kernels._splash_unsupported(q[:, :, :21], k, None)
    assert not attention_kernels._splash_unsupported(*[jnp.ones((B, 4, 516, 32))] * 2, None)
    assert attention_kernels._splash_unsupported(q, k[:, :, :100], None)
    assert attention_kernels._splash_unsupported(q, k, jnp.ones((1, 1, 1, T), bool))


def test_the_target_platform_is_that_of_the_mesh():
    assert partitioning.target_platform() == 'cpu'
    config, chip = MeshConfig(), AbstractDevice('TPU v5 lite', 1, 'tpu')
    with partitioning.use(partitioning.make(config)):
        assert partitioning.target_platform() == 'cpu'
    with partitioning.use(partitioning.make_abstract(config, 4, chip)):
        assert partitioning.target_platform() == 'tpu'
    with partitioning.use(partitioning.make_abstract(config, 4)):
        assert partitioning.target_platform() == 'cpu'


TPU_SCRIPT = """
import jax, sys
from bert_jax.planning import abstract_step, plan
from bert_jax.core import partitioning
from bert_jax.train import experiment
from bert_jax.train.loop import Phase
task, model, *rest = sys.argv[1:]
settings = ["data.sources=('none.txt',)", f'task.name={task}', f'model.name={model}', 'model.width=128', 'model.heads=2',
         'model.dtype=bfloat16', 'model.dropout=0.0', 'model.attention_dropout=0.0', 'model.max_positions=256', *rest]
e, t = abstract_step.complete_experiment(experiment.read('tests/tiny.py:pretrain', settings))
partitioner = partitioning.make(e.mesh, plan.Topology('v5e:2x2').devices())
step = abstract_step.make_step(e, t, Phase(0, 10, 256, 8), partitioner)
print(step.lower().compile().as_text().count('splash'))
"""


@pytest.mark.parametrize(('task', 'model'), [('mlm', 'bert'), ('clm', 'gpt'), ('denoise', 'bart')])
def test_train_steps_with_splash_compile_for_tpus(task, model):
    if not importlib.util.find_spec('libtpu'):
        pytest.skip('needs the TPU compiler: pip install "jax[tpu]"')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_NUMPY_DTYPE_PROMOTION': 'standard'}
    process = subprocess.run(
        [sys.executable, '-c', TPU_SCRIPT, task, model], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert int(process.stdout.split()[-1]) > 0


@pytest.mark.parametrize('kv_heads', [4, 2])
@pytest.mark.parametrize('mask', LOCAL_MASKS.values(), ids=LOCAL_MASKS)
def test_local_attention_equals_dense_attention(mask, kv_heads):
    """Values and gradients agree, also for lengths that are not a multiple of the block."""
    tensors = [x[:, :, : T - 5] for x in qkv(kv_heads=kv_heads)]
    mask = jax.tree.map(lambda x: x[:, : T - 5], mask)
    documents = jnp.ones((B, T - 5)) if mask.key_documents is None else mask.key_documents
    is_real = jnp.asarray(documents != 0, jnp.float32)
    assert local_attention.saves_work(mask, T - 5)

    def run(mask):
        def f(q, k, v):
            out = attend(q, k, v, mask, implementation='xla') * is_real[:, None, :, None]
            return jnp.sin(out).sum(), out

        grads, out = jax.jit(jax.grad(f, argnums=(0, 1, 2), has_aux=True))(*tensors)
        return [out, *grads]

    for ours, dense in zip(run(mask), run(mask.to_array(T - 5, T - 5)), strict=True):
        np.testing.assert_allclose(ours, dense, atol=2e-6)
