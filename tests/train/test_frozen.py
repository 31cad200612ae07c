"""Frozen parameters: no update, no gradient, no moments of Adam, no part in clipping, and their FLOP."""

import contextlib
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.core import metrics, partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import bert, module
from bert_jax.modeling.heads import ForClassification
from bert_jax.modeling.layers import Dense
from bert_jax.optim import OptimConfig
from bert_jax.tasks import TaskOutput
from bert_jax.train import flops
from bert_jax.train import state as state_lib
from bert_jax.train.checkpoint import Checkpointer
from bert_jax.train.experiment import CheckpointConfig
from bert_jax.train.step import make_train_step
from tests.runs import checkpoint_arrays, pretrain

WIDTH, BATCH = 8, 16
NO_DROPOUT = dict(dropout=0.0, attention_dropout=0.0)
CONFIG = bert.Config(size='tiny', width=WIDTH, heads=2, init_std=0.3, **NO_DROPOUT)
LAYERS = ('bottom', 'middle', 'top')


class Mlp(nnx.Module):
    """Three linear layers."""

    def __init__(self, config, rngs):
        for name in LAYERS:
            setattr(self, name, Dense(config, {'embed': WIDTH}, {'mlp': WIDTH}, rngs))

    def __call__(self, x):
        for name in LAYERS:
            x = getattr(self, name)(x)
        return x


class MlpTask:
    """Makes the outputs of an `Mlp` small."""

    def build_model(self, config, rngs):
        return Mlp(config, rngs)

    def loss(self, model, batch, key):
        y = model(batch['x'])
        return TaskOutput({'square': metrics.mean(jnp.square(y).sum(-1), jnp.ones(len(y)))}, {}, {})


TASK = MlpTask()
INPUTS = {'x': np.random.default_rng(0).normal(size=(BATCH, WIDTH)).astype(np.float32)}
ONE_PRODUCT = 2 * BATCH * WIDTH**2


def make(frozen=(), mesh=None, devices=1, accumulation_steps=1, **optim):
    """Mesh, layout, train step and initial state of an `Mlp`."""
    partitioner = partitioning.make(mesh or MeshConfig(), jax.devices()[:devices])
    config = OptimConfig(warmup=0, frozen=frozen, **optim)
    layout, step = make_train_step(
        TASK, CONFIG, config, 10, partitioner, accumulation_steps=accumulation_steps
    )
    return partitioner, layout, step, state_lib.create(layout, 0)


def update(*args, **kwargs):
    """Parameters before and after a step, and its metrics."""
    partitioner, _, step, state = make(*args, **kwargs)
    before = jax.device_get(state.params)
    state, values = step(state, partitioner.global_batch(INPUTS))
    return before, jax.device_get(state.params), {k: float(v.value()) for k, v in values.items()}


@pytest.mark.parametrize('accumulation_steps', [1, 2])
@pytest.mark.parametrize('frozen', [('bottom/',), ('middle/', 'top/bias'), ('top/',)], ids=str)
def test_only_trained_parameters_are_clipped_and_updated(frozen, accumulation_steps):
    settings = dict(learning_rate=0.1, eps=1.0, weight_decay=0.5, clip_norm=1.0)
    before, after, values = update(frozen, accumulation_steps=accumulation_steps, **settings)

    graph = make()[1].graph
    grads = jax.grad(lambda p: TASK.loss(module.merge(graph, p), INPUTS, None).losses['square'].value())
    grads = {name: np.asarray(g) for name, g in grads(before).items() if not name.startswith(frozen)}
    norm = math.sqrt(sum(np.square(g).sum() for g in grads.values()))
    assert values['grad_norm'] == pytest.approx(norm, rel=1e-4)
    assert norm > 1  # so that it is clipped
    for name, old in before.items():
        expected = old
        if name in grads:
            g = grads[name] / norm
            decay = 0.5 * old if name.endswith('kernel') else 0
            expected = old - 0.1 * (g / (abs(g) + 1) + decay)
            assert (after[name] != old).any()
            np.testing.assert_allclose(after[name], expected, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(after[name], old, err_msg=name)


@pytest.mark.parametrize(
    ('frozen', 'backward'), [((), 5), (('bottom/',), 3), (('bottom/', 'middle/'), 1), (('top/',), 4)]
)
def test_the_step_computes_no_gradient_for_frozen_parameters(frozen, backward):
    partitioner, layout, step, state = make(frozen)
    program = jax.make_jaxpr(step)(state, partitioner.global_batch(INPUTS)).jaxpr
    assert flops.matmul_flops(program) == (3 + backward) * ONE_PRODUCT
    ratio = flops.training_ratio(TASK, CONFIG, layout, INPUTS)
    assert ratio == pytest.approx((3 + backward) / 3 if frozen else 3)


@pytest.mark.parametrize('name', ['adamw', 'lamb'])
def test_frozen_parameters_have_no_moments(name, tmp_path):
    partitioner, layout, step, state = make(('bottom/', 'middle/bias'), MeshConfig('fsdp'), 8, name=name)
    assert layout.num_params == 3 * (WIDTH**2 + WIDTH)
    assert layout.num_trained_params == 2 * WIDTH**2 + WIDTH
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * layout.num_trained_params
    kernel = state.params['top/kernel'].sharding
    assert any(kernel.spec)
    assert sum(x.sharding == kernel for x in moments) == 4  # both moments of two kernels

    state, _ = step(state, partitioner.global_batch(INPUTS))
    metadata = {'config': {}, 'tokenizer': {}}
    with contextlib.closing(Checkpointer(tmp_path, CheckpointConfig(), metadata)) as checkpointer:
        checkpointer.save(state, {})
    with contextlib.closing(Checkpointer(tmp_path, CheckpointConfig(), metadata)) as checkpointer:
        restored = checkpointer.restore(layout)
    jax.tree.map(np.testing.assert_array_equal, restored, state)

    merged = state_lib.replace_params(state, {'bottom/bias': jnp.ones(WIDTH)}, layout)
    assert jax.tree.structure(merged) == jax.tree.structure(state)
    assert merged.params['bottom/bias'].sum() == WIDTH


def test_products_in_loops_count_once_per_iteration():
    x = jnp.ones((4, 4))

    def f(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jax.jit(jnp.matmul)(y, x), x) @ x

    assert flops.matmul_flops(jax.make_jaxpr(f)(x).jaxpr) == 6 * 2 * 4**3


class Classify(MlpTask):
    """Makes the logits of a classifier small."""

    def build_model(self, config, rngs):
        return ForClassification(config, 2, rngs)

    def loss(self, model, batch, key):
        logits = model(batch['tokens']).logits
        return TaskOutput({'square': metrics.mean(jnp.square(logits).sum(-1), jnp.ones(len(logits)))}, {}, {})


EMBEDDINGS = tuple(
    f'bert/{name}'
    for name in ('token_embedding', 'position_embedding', 'segment_embedding', 'embedding_norm')
)


@pytest.mark.parametrize('settings', [{}, {'scan_layers': True, 'remat': 'full'}], ids=str)
@pytest.mark.parametrize(
    ('frozen', 'ratio'),
    [
        ((), 3),
        (EMBEDDINGS, 3 - 1 / 8),  # the input of the first projection, 1/8 of all products, needs no gradient
        ((*EMBEDDINGS, 'bert/layers/blocks/0'), 2 - 1 / 8),
        (('bert/layers/',), 2),
        (('bert/',), 1),
    ],
    ids=str,
)
def test_ratio_of_a_bert_of_two_layers(frozen, ratio, settings):
    config = bert.Config(size='tiny', vocab_size=100, **NO_DROPOUT, **settings)
    partitioner = partitioning.make(MeshConfig(), jax.devices()[:1])
    make_model = functools.partial(Classify().build_model, config)
    layout = state_lib.make_layout(make_model, OptimConfig(frozen=frozen), 10, partitioner)
    batch = {'tokens': np.zeros((2, 8), np.int32)}
    actual = flops.training_ratio(Classify(), config, layout, batch)
    assert actual == pytest.approx(ratio, abs=0.03)


def flops_per_token(workdir):
    """Utilization divided by tokens per second, in the first line of metrics."""
    first = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[0])
    return first['mfu'] / first['tokens_per_second']


def test_run_with_a_frozen_encoder(tmp_path, corpus, rows, pretrained, caplog):
    caplog.set_level('INFO')
    settings = ('train.steps=2', 'optim.warmup=0', 'optim.frozen=bert/')
    assert pretrain(tmp_path, corpus, rows, *settings) == 0
    saved = checkpoint_arrays(tmp_path, 2)
    params, training = ([n for n in saved if n.startswith(part)] for part in ('params', 'training'))
    assert any('bert/' in name for name in params)
    assert any('masked_lm' in name for name in training)
    assert not any('bert/' in name for name in training)
    trained = sum(saved[name].size for name in params if 'bert/' not in name)
    total = sum(saved[name].size for name in params)
    assert f'training {trained:,} of {total:,} parameters' in caplog.text
    # The forward pass, and the backward pass of the head.
    assert 1 < 3 * flops_per_token(tmp_path) / flops_per_token(pretrained) < 2
