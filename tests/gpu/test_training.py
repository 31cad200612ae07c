"""Training on the device: chunked losses, no kernels of CPUs, losses like those of a CPU, and exact resumption."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice

from bert_jax import optim
from bert_jax.core import metrics, partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import cpu_decoding, gpt, module
from bert_jax.train import state as state_lib
from bert_jax.train.step import make_train_step

ON_GPU = jax.default_backend() == 'gpu'
needs_gpu = pytest.mark.skipif(not ON_GPU, reason='needs a GPU: python -m pytest --noconftest tests/gpu')
BATCH, VOCAB, STEPS = 8, 300, 20
LENGTH, LAYERS = (128, 2) if ON_GPU else (32, 1)  # a CPU checks the test, not its own arithmetic


class Task:
    """Prediction of the next token, with the loss in chunks of `chunk` positions."""

    def __init__(self, chunk: int = 0):
        self.chunk = chunk

    def build_model(self, config, rngs):
        return gpt.GptForCausalLM(config, rngs)

    def loss(self, model, batch, key):
        hidden = model.gpt(batch['tokens'], None, batch['valid'], key).hidden_states[-1]
        losses, _ = model.token_loss(hidden[:, :-1], batch['tokens'][:, 1:], self.chunk)
        is_real = (batch['valid'][:, 1:] != 0).astype(jnp.float32)
        return types.SimpleNamespace(losses={'lm': metrics.mean(losses, is_real)}, metrics={})


def make_batch(step):
    """Packed rows of counting token ids, which are easy to predict."""
    rng = np.random.default_rng(step)
    documents = np.sort(rng.integers(1, 4, (BATCH, LENGTH)).astype(np.int32))
    documents[:, -5:] = 0
    starts = rng.integers(0, VOCAB, (BATCH, 4))
    tokens = (np.take_along_axis(starts, documents, 1) + np.arange(LENGTH)) % VOCAB
    return {'tokens': tokens.astype(np.int32), 'valid': documents}


@functools.cache
def make_training(device, prng='threefry', **model):
    """Return the partitioner of one device, and the layout and step of a small model."""
    config = gpt.Config(
        size='tiny', width=64, heads=2, mlp_width=128, layers=LAYERS, max_positions=LENGTH, vocab_size=VOCAB,
        **{'dropout': 0.0, 'attention_dropout': 0.0} | model,
    )  # fmt: skip
    partitioner = partitioning.make(MeshConfig(), [device])
    optimizer = optim.OptimConfig(learning_rate=3e-3, warmup=2)
    return partitioner, *make_train_step(Task(), config, optimizer, STEPS, partitioner, prng=prng)


def train(training, start, end, state=None):
    """Train from step `start` to step `end`; return the state, copied to the host, and the losses."""
    partitioner, layout, step = training
    state = state_lib.create(layout, seed=0) if state is None else jax.device_put(state, layout.shardings)
    losses = []
    for i in range(start, end):
        state, means = step(state, partitioner.global_batch(make_batch(i)))
        losses.append(float(means['loss'].value()))
    return jax.device_get(state), losses


@pytest.mark.parametrize(
    ('dtype', 'implementation', 'tolerance'),
    [
        pytest.param('float32', 'auto', 1e-2, marks=needs_gpu),
        ('bfloat16', 'auto', 2e-2),
        pytest.param('bfloat16', 'pallas', 2e-2, marks=needs_gpu),
    ],
)
def test_losses_are_those_of_float32_on_a_cpu(dtype, implementation, tolerance):
    """Rounding moves the losses less than training does."""
    training = make_training(jax.devices()[0], dtype=dtype, attention_implementation=implementation)
    losses = train(training, 0, STEPS)[1]
    expected = train(make_training(jax.devices('cpu')[0]), 0, STEPS)[1]
    assert losses[0] == pytest.approx(expected[0], rel=2e-3)
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert expected[-1] < expected[0] * (1 - 5 * tolerance)


@pytest.mark.parametrize('dtype', ['float32', pytest.param('bfloat16', marks=needs_gpu)])
def test_chunked_loss_equals_the_whole_loss(dtype):
    """Values and gradients agree up to the rounding of a matrix product in this precision."""
    rounding = 2.0**-8 if dtype == 'bfloat16' else 2.0**-11 if ON_GPU else 1e-6
    batch = {name: jnp.asarray(value) for name, value in make_batch(0).items()}
    config = gpt.Config(
        size='tiny', width=64, heads=2, layers=1, max_positions=LENGTH, vocab_size=VOCAB, dtype=dtype
    )
    graph, params = module.split(gpt.GptForCausalLM(config, module.Rngs(0)))

    def run(chunk):
        def loss(params):
            return Task(chunk).loss(module.merge(graph, params), batch, None).losses['lm'].value()

        return jax.jit(jax.value_and_grad(loss))(params)

    for a, b in zip(*(jax.tree.leaves(run(chunk)) for chunk in (20, 0)), strict=True):
        assert abs(a - b).max() <= 4 * rounding * abs(b).max() + 1e-9


@pytest.mark.parametrize('prng', ['threefry', pytest.param('rbg', marks=needs_gpu)])
def test_training_resumes_to_the_bit(prng):
    """Four steps equal two steps, a copy of the state on the host, and two more, with dropout."""
    training = make_training(jax.devices()[0], prng, dropout=0.1, attention_dropout=0.1, dtype='bfloat16')
    whole, _ = train(training, 0, 4)
    resumed, _ = train(training, 2, 4, train(training, 0, 2)[0])
    assert int(resumed.step) == 4
    for a, b in zip(*(jax.tree.leaves(s) for s in (whole, resumed)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gpus_run_no_kernels_of_cpus():
    x, w = jnp.ones((8, 256)), jnp.ones((304, 256))
    gpu = partitioning.make_abstract(MeshConfig(), 1, AbstractDevice('NVIDIA H200', None, 'gpu'))

    def primitives(partitioner):
        def f(x, w):
            with cpu_decoding.packed_matrices():
                return cpu_decoding.matmul(x, w, transposed=True)

        with partitioning.use(partitioner):
            return {str(e.primitive) for e in jax.make_jaxpr(f)(x, w).jaxpr.eqns}

    assert primitives(gpu) == {'transpose', 'dot_general'}
    cpu = partitioning.make(MeshConfig(), jax.devices('cpu')[:1])
    assert primitives(cpu) & {'ffi_call', 'optimization_barrier'}
