"""Attention kernels: equal to plain attention, interpreted or compiled for absent devices."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import attention, local_attention, masks
from bert_jax.modeling.attention import attend
from bert_jax.modeling.masks import Mask
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


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_bias_of_cudnn_is_finite(monkeypatch, dtype):
    passed = {}

    def dot_product_attention(q, k, v, implementation, **options):
        passed.update(options)
        return q

    monkeypatch.setattr(jax.nn, 'dot_product_attention', dot_product_attention)
    bias = jnp.full((B, 1, T, T), jnp.finfo(jnp.float32).min).at[..., 0].set(-1.5)
    attend(*(x.astype(dtype) for x in qkv()), bias, implementation='cudnn')
    assert passed['bias'].dtype == dtype
    assert jnp.isfinite(passed['bias']).all()
    assert (passed['bias'][..., 0] == -1.5).all()


@pytest.mark.parametrize('name', [*MASKS, *LOCAL_MASKS])
def test_splash_equals_plain_attention(name):
    documents = PACKED if 'packed' in name else REAL if 'padding' in name else np.ones((B, T))
    is_real = jnp.asarray(documents != 0, jnp.float32)[:, None, :, None]
    for a, b in splash_and_xla({**MASKS, **LOCAL_MASKS}[name], qkv(), is_real):
        np.testing.assert_allclose(a, b, atol=2e-5)


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
    assert attention._splash_supports(q, k, Mask())
    assert attention._splash_supports(q, k, None)
    assert not attention._splash_supports(q[:, :, :21], k, None)
    assert not attention._splash_supports(q, k[:, :, :100], None)
    assert not attention._splash_supports(q, k, jnp.ones((1, 1, 1, T), bool))


def test_the_target_platform_is_that_of_the_mesh():
    assert partitioning.target_platform() == 'cpu'
    config, chip = MeshConfig(), AbstractDevice('TPU v5 lite', 1, 'tpu')
    with partitioning.use(partitioning.make(config)):
        assert partitioning.target_platform() == 'cpu'
    with partitioning.use(partitioning.make_abstract(config, 4, chip)):
        assert partitioning.target_platform() == 'tpu'
    with partitioning.use(partitioning.make_abstract(config, 4)):
        assert partitioning.target_platform() == 'cpu'


TPU = """
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
        [sys.executable, '-c', TPU, task, model], cwd=ROOT, env=env, capture_output=True, text=True
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
