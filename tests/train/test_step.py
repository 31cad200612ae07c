"""The result of a train step does not depend on sharding, accumulation, scan or remat, up to rounding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import optim
from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data import rows as rows_lib
from bert_jax.data.pipeline import Batches
from bert_jax.data.prepare import TextConfig
from bert_jax.modeling import bert
from bert_jax.tasks import mlm
from bert_jax.train import state as state_lib
from bert_jax.train.step import make_train_step
from tests.modeling import tiny
from tests.runs import slow_after

LENGTH, BATCH = 32, 16


@pytest.fixture(scope='module')
def task(tokenizer):
    return mlm.Task(mlm.Config(), TextConfig(), tokenizer)


@pytest.fixture(scope='module')
def batch(task, tokenizer):
    rng = np.random.default_rng(0)
    documents = [
        [rng.integers(5, len(tokenizer), rng.integers(3, 9), dtype=np.int32) for _ in range(9)]
        for _ in range(9)
    ]
    rows = list(rows_lib.SegmentRows(LENGTH)(documents, tokenizer, rng))
    return Batches(rows, task.example, BATCH, seed=0)(0)


def make_step(
    task, tokenizer, mesh=None, devices=8, accumulation_steps=1, prng='threefry', optimizer='adamw', **model
):
    """Return the partitioner, and the layout and step of a small model."""
    model = {'width': 32, 'mlp_width': 64, 'dropout': 0.0, 'attention_dropout': 0.0} | model
    config = bert.Config(size='tiny', max_positions=LENGTH, vocab_size=len(tokenizer), **model)
    partitioner = partitioning.make(mesh or MeshConfig(), jax.devices()[:devices])
    layout, step = make_train_step(
        task,
        config,
        optim.OptimConfig(optimizer, warmup=0, eps=1e-3),
        10,
        partitioner,
        accumulation_steps=accumulation_steps,
        prng=prng,
    )
    return partitioner, layout, step


def update(task, tokenizer, batch, start=0, **settings):
    """Run one step from a fixed state, whose step is `start`; return the new state and the metrics."""
    partitioner, layout, step = make_step(task, tokenizer, **settings)
    state = state_lib.create(layout, seed=0)
    state = dataclasses.replace(state, step=state.step + start)
    state, metrics = step(state, partitioner.global_batch(batch))
    return jax.device_get(state), {k: float(m.value()) for k, m in jax.device_get(metrics).items()}


@pytest.fixture(scope='module')
def single(task, tokenizer, batch):
    """Result of a step with dropout on one device."""
    return update(task, tokenizer, batch, devices=1, dropout=0.1)


def test_dropout_differs_between_steps(task, tokenizer, batch, single):
    _, metrics = update(task, tokenizer, batch, devices=1, dropout=0.1, start=1)
    assert abs(metrics['loss'] - single[1]['loss']) > 1e-4


def test_hardware_generator_draws_all_bits_of_the_step(task, tokenizer, batch):
    def lower(**settings):
        partitioner, layout, step = make_step(task, tokenizer, **settings)
        text = step.func.lower(*step.args, layout.abstract, partitioner.global_batch(batch)).as_text()
        return {name for name in ('threefry', 'rng_bit_generator') if name in text}

    assert lower() == lower(prng='rbg') == set()  # without dropout
    assert lower(dropout=0.1) == {'threefry'}
    assert 'rng_bit_generator' in lower(dropout=0.1, prng='rbg')  # its keys are derived by threefry


def assert_same(a, b, tolerance=2e-5):
    (left, ml), (right, mr) = a, b
    assert ml == pytest.approx(mr, rel=1e-4, abs=1e-5)
    for name in left.params:
        np.testing.assert_allclose(left.params[name], right.params[name], atol=tolerance, err_msg=name)


MESHES = [
    MeshConfig('dp'),
    MeshConfig('fsdp_tp', fsdp=4, tensor=2),
    MeshConfig('fsdp'),
    MeshConfig('fsdp', data=2),
    MeshConfig('tp', data=4, tensor=2),
]


@pytest.mark.parametrize(
    'mesh', slow_after(2, MESHES), ids=lambda m: f'{m.strategy}-{m.data}-{m.fsdp}-{m.tensor}'
)
def test_sharded_step_equals_single_device(task, tokenizer, batch, mesh, single):
    assert_same(update(task, tokenizer, batch, mesh=mesh, dropout=0.1), single)


@pytest.mark.parametrize('name', slow_after(2, ['EUROBERT', 'MPNET', 'NOMIC', 'ALBERT', 'DEBERTA', 'T5']))
def test_sharded_step_of_other_encoders_equals_single_device(task, tokenizer, batch, name):
    settings = getattr(tiny, name)
    mesh = MeshConfig('fsdp_tp', fsdp=4, tensor=2)
    one, sharded = (
        update(task, tokenizer, batch, **where, **settings) for where in ({'devices': 1}, {'mesh': mesh})
    )
    assert_same(sharded, one)
    changed = update(task, tokenizer, batch, devices=1, remat='full', accumulation_steps=2, **settings)
    assert_same(changed, one)


@pytest.mark.parametrize(
    'mesh', slow_after(1, MESHES[1:]), ids=lambda m: f'{m.strategy}-{m.data}-{m.fsdp}-{m.tensor}'
)
@pytest.mark.parametrize('optimizer', ['muon', 'stable_adamw'])
def test_sharded_optimizer_equals_single_device(task, tokenizer, batch, mesh, optimizer):
    settings = {'optimizer': optimizer, 'gated_mlp': True, 'kv_heads': 2, 'heads': 4}
    sharded = update(task, tokenizer, batch, mesh=mesh, **settings)
    assert_same(sharded, update(task, tokenizer, batch, devices=1, **settings))


def test_parameters_and_moments_are_sharded(task, tokenizer):
    config = bert.Config(size='tiny', width=32, mlp_width=64, max_positions=LENGTH, vocab_size=len(tokenizer))
    make = functools.partial(task.build_model, config)
    partitioner = partitioning.make(MeshConfig('fsdp_tp', fsdp=4, tensor=2))
    layout = state_lib.make_layout(make, optim.OptimConfig(), 10, partitioner)
    state = state_lib.create(layout, seed=0)
    kernel = state.params['bert/layers/blocks/0/mlp/up/kernel']
    assert kernel.addressable_shards[0].data.shape == (32 // 4, 64 // 2)
    moments = [m for m in jax.tree.leaves(state.opt_state) if m.shape == kernel.shape]
    assert {m.sharding for m in moments} == {kernel.sharding}
    assert 'bert/layers/blocks/*/mlp/up/kernel' in layout.format_parameters()


def test_initialization_does_not_depend_on_mesh(task, tokenizer):
    config = bert.Config(size='tiny', width=32, mlp_width=64, max_positions=LENGTH, vocab_size=len(tokenizer))
    make = functools.partial(task.build_model, config)
    starts = []
    for mesh, devices in ((MeshConfig(), 1), (MeshConfig('fsdp'), 8)):
        partitioner = partitioning.make(mesh, jax.devices()[:devices])
        layout = state_lib.make_layout(make, optim.OptimConfig(), 10, partitioner)
        starts.append(jax.device_get(state_lib.create(layout, seed=3).params))
    for name in starts[0]:
        np.testing.assert_array_equal(starts[0][name], starts[1][name], err_msg=name)


def test_accumulated_gradients_equal_gradients_of_whole_batch(task, tokenizer, batch):
    batch = {k: v.copy() for k, v in batch.items()}
    batch['weights'][: BATCH // 2] *= (
        np.arange(batch['weights'].shape[1]) < 1
    )  # so that the parts have different weights
    one = update(task, tokenizer, batch, devices=1)
    assert_same(update(task, tokenizer, batch, devices=1, accumulation_steps=4), one)


@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_remat_changes_nothing(task, tokenizer, batch, remat, single):
    assert_same(update(task, tokenizer, batch, devices=1, dropout=0.1, remat=remat), single)


def test_state_is_float32_with_bfloat16_model(task, tokenizer, batch):
    state, metrics = update(task, tokenizer, batch, dtype='bfloat16')
    assert {p.dtype for p in state.params.values()} == {np.dtype('float32')}
    _, exact = update(task, tokenizer, batch)
    assert metrics['loss'] == pytest.approx(exact['loss'], rel=1e-2)
    assert metrics['loss'] != exact['loss']


def test_loss_decreases_on_one_batch(task, tokenizer, batch):
    config = bert.Config(
        size='tiny', width=32, mlp_width=64, max_positions=LENGTH, vocab_size=len(tokenizer), dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    partitioner = partitioning.make(MeshConfig(), jax.devices()[:1])
    optim_config = optim.OptimConfig(learning_rate=3e-3, warmup=0, schedule='constant')
    layout, step = make_train_step(task, config, optim_config, 40, partitioner)
    state = state_lib.create(layout, seed=0)
    losses = []
    for _ in range(40):
        state, metrics = step(state, partitioner.global_batch(batch))
        losses.append(float(metrics['loss'].value()))
    assert losses[-1] < losses[0] - 1
    assert jnp.isfinite(losses[-1])
