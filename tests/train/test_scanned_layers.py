"""Training with stacked layers equals training with separate ones, and a checkpoint of either kind serves both."""

import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bert_jax
from bert_jax import optim
from bert_jax.core import partitioning, stacking
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig
from bert_jax.modeling import bert
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import inputs
from bert_jax.train import state as state_lib
from tests import runs
from tests.runs import slow_after
from tests.train.test_step import batch, make_step, task  # noqa: F401

LAYERS = 4
SCAN = {'layers': LAYERS, 'scan_layers': True}


def update(task, tokenizer, batch, **settings):  # noqa: F811
    """State and metrics after two steps, without stacks."""
    partitioner, layout, step = make_step(task, tokenizer, layers=LAYERS, **settings)
    state = state_lib.create(layout, seed=0)
    for _ in range(2):
        state, metrics = step(state, partitioner.global_batch(batch))
    apart = (
        layout.shapes.params if not settings.get('scan_layers') else stacking.unstack(layout.shapes.params)
    )
    return jax.device_get((stacking.convert(state, apart), metrics))


@pytest.mark.parametrize(
    ('settings', 'stacked'),
    slow_after(
        2,
        [
            ({'dropout': 0.1}, {'remat': 'full', 'devices': 1}),
            ({'optimizer': 'muon'}, {'mesh': MeshConfig('fsdp_tp', fsdp=4, tensor=2)}),
            (
                {'optimizer': 'lamb'},
                {'mesh': MeshConfig('fsdp_tp', fsdp=4, tensor=2), 'accumulation_steps': 2},
            ),
            ({'optimizer': 'stable_adamw'}, {'mesh': MeshConfig('fsdp')}),
        ],
    ),
    ids=['adamw', 'muon', 'lamb', 'stable_adamw'],
)
def test_two_steps_equal_those_with_separate_layers(task, tokenizer, batch, settings, stacked):  # noqa: F811
    expected, metrics = update(task, tokenizer, batch, devices=1, **settings)
    actual, other_metrics = update(task, tokenizer, batch, scan_layers=True, **settings, **stacked)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for name in ('loss', 'grad_norm'):
        assert float(other_metrics[name].value()) == pytest.approx(float(metrics[name].value()), rel=1e-4)
    for path, value in expected.params.items():
        np.testing.assert_allclose(actual.params[path], value, atol=2e-5, err_msg=path)
    for a, b in zip(*map(jax.tree.leaves, (actual.opt_state, expected.opt_state)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_stacked_parameters_and_moments_are_created_sharded(task, tokenizer):  # noqa: F811
    _, layout, _ = make_step(task, tokenizer, mesh=MeshConfig('fsdp_tp', fsdp=4, tensor=2), **SCAN)
    state = state_lib.create(layout, seed=0)
    kernel = state.params['bert/layers/blocks/0:3:1/mlp/up/kernel']
    assert kernel.addressable_shards[0].data.shape == (3, 32 // 4, 64 // 2)
    moments = [m for m in jax.tree.leaves(state.opt_state) if m.shape == kernel.shape]
    assert {m.sharding for m in moments} == {kernel.sharding}
    assert len(moments) == 2


def whole_array_copies(program, sizes):
    """Operations that make, out of anything but a constant, a new array with one of these shapes.

    The loops of the scan, the updates of the optimizer and the writes of single layers are not among them.
    """
    found = []
    for shape, name, operand in re.findall(r'= \w+\[([\d,]+)\]\S* ([a-z-]+)\(%?([\w.-]*)', program):
        made = name in ('concatenate', 'copy', 'transpose', 'pad', 'gather', 'all-gather', 'slice', 'reverse')
        if made and tuple(map(int, shape.split(','))) in sizes and 'broadcast' not in operand:
            found.append(f'{name} [{shape}]')
    return found


@pytest.mark.parametrize('mesh', ['dp', 'fsdp'])
def test_the_compiled_step_does_not_copy_stacked_parameters(task, tokenizer, batch, mesh):  # noqa: F811
    partitioner, layout, step = make_step(task, tokenizer, mesh=MeshConfig(mesh), mlp_width=96, **SCAN)
    stacked = {path: x for path, x in layout.abstract.params.items() if stacking.is_stacked(path)}
    sizes = {x.shape for x in stacked.values()} | {x.sharding.shard_shape(x.shape) for x in stacked.values()}
    assert len(stacked) == 12
    program = (
        step.func.lower(*step.args, layout.abstract, partitioner.global_batch(batch)).compile().as_text()
    )
    assert ' while(' in program
    assert whole_array_copies(program, sizes) == []


def test_stacking_inside_a_step_would_be_found():
    """The search of the test above finds what a scan over separate parameters has to do."""
    layers = [jnp.ones((8, 16)) for _ in range(5)]

    def loss(layers):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w @ w.T), None), jnp.ones((4, 8)), jnp.stack(layers))[
            0
        ].sum()

    program = jax.jit(jax.grad(loss)).lower(layers).compile().as_text()
    assert 'concatenate [5,8,16]' in whole_array_copies(program, {(5, 8, 16)})


def make_layout(task, tokenizer, frozen, **model):  # noqa: F811
    config = bert.Config(size='tiny', width=32, mlp_width=64, vocab_size=len(tokenizer), **model)
    partitioner = partitioning.make(MeshConfig('fsdp'))
    make = functools.partial(task.build_model, config)
    return state_lib.make_layout(make, optim.OptimConfig(frozen=frozen), 10, partitioner)


def test_frozen_layers_are_those_of_the_path_or_an_error(task, tokenizer):  # noqa: F811
    frozen = ('bert/layers/blocks/3', 'bert/layers/blocks')
    for prefix, number in zip(frozen, (1, LAYERS), strict=True):
        apart, stacked = (
            make_layout(task, tokenizer, (prefix,), layers=LAYERS, scan_layers=s) for s in (False, True)
        )
        assert apart.trained == {p for path in stacked.trained for p in stacking.layer_paths(path)}
        assert apart.num_trained_params == stacked.num_trained_params
        assert len(apart.shapes.params) - len(apart.trained) == 12 * number
    with pytest.raises(
        UserError,
        match=r"optim\.frozen=\('bert/layers/blocks/1',\) freezes only some .*model\.scan_layers=False",
    ):
        make_layout(task, tokenizer, ('bert/layers/blocks/1',), **SCAN)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, corpus, rows):
    """Working directories of equal runs of 4 steps with checkpoints 2 and 4, by `scan_layers`."""
    folders = {scan: tmp_path_factory.mktemp(f'scan_{scan}') for scan in (False, True)}
    for scan, folder in folders.items():
        assert pretrain(folder, corpus, rows, f'model.scan_layers={scan}') == 0
    return folders


def pretrain(workdir, corpus, rows, *settings):
    steps = ('train.steps=4', 'checkpoint.every=2', 'train.eval_every=4')
    return runs.pretrain(workdir, corpus, rows, f'model.layers={LAYERS}', *steps, *settings)


def saved_arrays(workdir):
    """All arrays of the checkpoint of step 4, by path, without stacks."""
    arrays = runs.checkpoint_arrays(workdir, 4).items()
    return stacking.unstack({'/'.join(re.findall(r"key='([^']+)'", name)): x for name, x in arrays})


@pytest.mark.parametrize('scan', slow_after(1, [True, False]))
def test_a_run_resumes_with_the_other_kind_of_layers(tmp_path, corpus, rows, trained, scan):
    """So does a run of an earlier version with `scan_layers`, which saved separate layers."""
    shutil.copytree(trained[not scan], tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '4')
    settings = (f'model.scan_layers={scan}', 'mesh.strategy=fsdp')
    assert pretrain(tmp_path / 'run', corpus, rows, *settings) == 0
    stored = runs.checkpoint_arrays(tmp_path / 'run', 4)
    assert any('0:3:1' in name for name in stored) == scan
    left, right = saved_arrays(tmp_path / 'run'), saved_arrays(trained[scan])
    assert left.keys() == right.keys()
    assert sum('/nu/' in name for name in left) == len(left) // 3
    for name, value in right.items():
        np.testing.assert_allclose(left[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_another_number_of_layers_is_another_model(tmp_path, corpus, rows, trained):
    shutil.copytree(trained[True], tmp_path / 'run')
    (tmp_path / 'run' / 'config.json').write_text(
        (tmp_path / 'run' / 'config.json').read_text().replace(f'"layers": {LAYERS}', '"layers": 3')
    )
    with pytest.raises(
        UserError, match=r'another model \(bert/layers/blocks/3/.*: .* in the checkpoint, missing'
    ):
        pretrain(tmp_path / 'run', corpus, rows, 'model.layers=3')


@pytest.mark.parametrize('scan', [False, True])
def test_a_run_starts_from_the_other_kind_of_layers(tmp_path, corpus, rows, trained, scan):
    base = [
        f'data.sources=({str(corpus)!r},)',
        f'data.rows_dir={rows}',
        f'init.checkpoint={trained[not scan]}',
    ]
    experiment = experiment_lib.read(f'{runs.TINY}:pretrain', [*base, f'model.scan_layers={scan}'])
    experiment, tokenizer, read_params = inputs.resolve(experiment, tmp_path)
    make = functools.partial(experiment.make_task(tokenizer).build_model, experiment.model)
    layout = state_lib.make_layout(make, experiment.optim, 10, partitioning.make(MeshConfig('fsdp')))
    params = read_params(layout)
    assert params.keys() == layout.shapes.params.keys()
    assert any(map(stacking.is_stacked, params)) == scan
    for path, value in params.items():
        assert value.sharding.is_equivalent_to(layout.shardings.params[path], value.ndim)
    saved = saved_arrays(trained[not scan])
    for path, value in stacking.unstack(params).items():
        np.testing.assert_array_equal(value, saved[path], err_msg=path)


def test_a_loaded_model_has_separate_layers(trained):
    apart, stacked = (bert_jax.load(folder)[0] for folder in trained.values())
    assert stacked.params.keys() == apart.params.keys()
    assert len(stacked.module.bert.layers.blocks) == LAYERS
    tokens = np.arange(5, 15, dtype=np.int32)[None]
    np.testing.assert_allclose(stacked(tokens).logits, apart(tokens).logits, atol=1e-3)
