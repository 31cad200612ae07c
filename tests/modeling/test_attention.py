"""Attention by the means of each device: the same results as plain attention, where they can run or be interpreted."""

import importlib.util
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import attention, masks
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


def both(mask, tensors, seen):
    """Output and gradients of splash and of plain attention, where a query is real."""

    def run(implementation):
        def f(q, k, v):
            out = attend(q, k, v, mask, implementation=implementation)
            return (jnp.sin(out) * seen).sum(), out

        grads, out = jax.jit(jax.grad(f, argnums=(0, 1, 2), has_aux=True))(*tensors)
        return [out * seen, *grads]

    return zip(run('splash'), run('xla'), strict=True)


@pytest.mark.parametrize('name', MASKS)
def test_splash_is_plain_attention(name):
    seen = PACKED if 'packed' in name else REAL if name == 'padding' else np.ones((B, T))
    for a, b in both(MASKS[name], qkv(), jnp.asarray(seen != 0, jnp.float32)[:, None, :, None]):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_splash_looks_at_another_text_and_shares_heads():
    for a, b in both(masks.padding(jnp.asarray(REAL)), qkv(tq=256, heads=4, kv_heads=2), jnp.float32(1)):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('mesh', [MeshConfig('dp'), MeshConfig('fsdp_tp', data=2, fsdp=2, tensor=2)])
def test_splash_on_a_mesh(mesh):
    with partitioning.use(partitioning.make(mesh)):
        for a, b in both(MASKS['packed'], qkv(), jnp.asarray(PACKED != 0, jnp.float32)[:, None, :, None]):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_splash_leaves_to_others_what_it_cannot_do():
    q, k, _ = qkv()
    assert attention._splash_can(q, k, Mask())
    assert attention._splash_can(q, k, None)
    assert not attention._splash_can(q[:, :, :21], k, None)
    assert not attention._splash_can(q, k[:, :, :100], None)
    assert not attention._splash_can(q, k, jnp.ones((1, 1, 1, T), bool))


def test_the_platform_is_that_of_the_mesh():
    assert partitioning.platform() == 'cpu'
    chip = types.SimpleNamespace(platform='tpu')
    mesh = types.SimpleNamespace(devices=np.array([[[chip]]]))
    with partitioning.use(partitioning.Partitioner(mesh, {})):
        assert partitioning.platform() == 'tpu'


TPU = """
import jax, sys
from bert_jax.evals import plan, program
from bert_jax.core import partitioning
from bert_jax.train import experiment
from bert_jax.train.loop import Phase
task, model, *rest = sys.argv[1:]
given = ["data.sources=('none.txt',)", f'task.name={task}', f'model.name={model}', 'model.width=128', 'model.heads=2',
         'model.dtype=bfloat16', 'model.dropout=0.0', 'model.attention_dropout=0.0', 'model.positions=256', *rest]
e, t = program.stand_in(experiment.read('tests/tiny.py:pretrain', given))
partitioner = partitioning.make(e.mesh, plan.Topology('v5e:2x2').devices())
step = program.make(e, t, Phase(0, 10, 256, 8), partitioner)
print(step.lower().compile().as_text().count('splash'))
"""


@pytest.mark.parametrize(('task', 'model'), [('mlm', 'bert'), ('clm', 'gpt'), ('denoise', 'bart')])
def test_programs_with_splash_compile_for_tpus(task, model):
    if not importlib.util.find_spec('libtpu'):
        pytest.skip('needs the TPU compiler: pip install "jax[tpu]"')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_NUMPY_DTYPE_PROMOTION': 'standard'}
    done = subprocess.run(
        [sys.executable, '-c', TPU, task, model], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0
