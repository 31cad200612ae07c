"""Plans: what is read from a compiled program, formulas, and the TPU compiler where it is installed."""

import dataclasses
import importlib.util
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.core import chips, partitioning
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig
from bert_jax.planning import abstract_step, plan
from bert_jax.planning.collectives import collectives
from bert_jax.planning.plan import Topology
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.loop import Phase
from tests.runs import ROOT, TINY, run_here

PHASE = Phase(0, 10, 32, 16)


def compiled(f, mesh, out, *arguments):
    """The program of `f` over a mesh; arguments are (shape, spec)."""
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in arguments
    ]
    return jax.jit(f, out_shardings=NamedSharding(mesh, out)).lower(*shapes).compile().as_text()


def test_collectives_of_a_program_are_counted_with_their_bytes():
    mesh = partitioning.make(MeshConfig('fsdp_tp', data=2, fsdp=4)).mesh
    text = compiled(lambda x: x.sum(0), mesh, P(), ((8, 64), P(('data', 'fsdp'))))
    (found,) = collectives(text, 8)
    assert found == ('all-reduce', 1, 256, 2 * 256 * 7 / 8)
    text = compiled(lambda x: x * 2, mesh, P(), ((8, 64), P('fsdp')))
    (found,) = collectives(text, 8)
    assert found == ('all-gather', 1, 8 * 64 * 4, 8 * 64 * 4 * 3 / 4)
    assert not collectives(compiled(lambda x: x * 2, mesh, P('fsdp'), ((8, 64), P('fsdp'))), 8)


def test_collectives_in_a_loop_count_as_often_as_it_runs():
    mesh = partitioning.make(MeshConfig()).mesh

    def f(x, w):
        return jax.lax.scan(lambda y, w: (jnp.tanh(w @ y), None), x, w)[0]

    text = compiled(f, mesh, P(), ((64,), P()), ((5, 64, 64), P(None, None, 'data')))
    found = {c.kind: c for c in collectives(text, 8)}
    assert (found['all-reduce'].number, found['all-reduce'].data) == (5, 5 * 256)


# Lines as the TPU compiler writes them.
TPU = """
%cond (p: (u32[], bf16[8])) -> pred[] {
  %constant.1 = u32[]{:T(128)} constant(8)
}

%windowed_dot_general_body (p: (u32[], bf16[8])) -> (u32[], bf16[8]) {
  %a = (bf16[8]{0}, bf16[8]{0}, u32[], u32[]) collective-permute-start(%x), channel_id=4, source_target_pairs={{0,1}}
  %b = (bf16[8]{0}, bf16[8]{0}, u32[], u32[]) collective-permute-start(%x), channel_id=5, source_target_pairs={{0,1}}
  %c = (bf16[8]{0}, bf16[8]{0}, u32[], u32[]) collective-permute-start(%a), channel_id=6, source_target_pairs={{0,1}}
  %d = (bf16[8]{0}, bf16[8]{0}, u32[], u32[]) collective-permute-start(%b), channel_id=7, source_target_pairs={{0,1}}
}

%part (p: bf16[4]) -> bf16[64] {
  %gather.2 = bf16[64]{0} all-gather(%p), channel_id=2, replica_groups=mesh['a'=1,'b'=16] {'b'}, dimensions={0}
}

ENTRY %main (p: bf16[4]) -> bf16[64] {
  %start = bf16[64]{0} fusion(%p), kind=kCustom, calls=%part
  %done = bf16[64]{0} fusion(%start), kind=kCustom, calls=%part
  %all-reduce.1 = (f32[]{:T(128)}, bf16[100,2]{1,0:T(8,128)(2,1)S(1)}) all-reduce(%y, %z), channel_id=3, replica_groups=mesh['a'=4,'b'=4] {'a','b'}, to_apply=%add
  %loop = (u32[], bf16[8]) while(%t), condition=%cond, body=%windowed_dot_general_body
  %scatter = f32[10]{0} reduce-scatter(%v), channel_id=9, replica_groups=[1,16]<=[16], dimensions={0}
}
"""


def test_the_ways_of_the_tpu_compiler_are_read():
    found = {c.kind: c for c in collectives(TPU, 16)}
    assert found['all-gather'] == ('all-gather', 1, 128, 128 * 15 / 16)  # written twice, sent once
    assert found['all-reduce'] == ('all-reduce', 1, 404, 2 * 404 * 15 / 16)
    assert found['reduce-scatter'] == ('reduce-scatter', 1, 640, 600)
    assert found['collective-permute'] == ('collective-permute', 16, 256, 256)


def tiny(*settings):
    base = ["data.sources=('none.txt',)", *settings]
    return abstract_step.stand_in(experiment_lib.read(f'{TINY}:pretrain', base))


@pytest.mark.parametrize(
    'settings', [(), ('task.name=clm', 'model.name=gpt'), ('task.name=denoise', 'model.name=bart')]
)
def test_the_planned_step_is_the_one_that_trains(settings):
    experiment, tokenizer = tiny(*settings)
    step = abstract_step.make(experiment, tokenizer, PHASE, partitioning.make(experiment.mesh))
    assert len(tokenizer) == 200
    assert step.batch['valid'].shape == (16, 32)
    stats = step.lower().compile().memory_analysis()
    assert sum(step.bytes) < stats.argument_size_in_bytes < sum(step.bytes) + 50_000


def test_by_formula_parameters_are_split_and_messages_follow():
    experiment, tokenizer = tiny()
    plans = {}
    for strategy in ('dp', 'fsdp', 'tp'):
        split = dataclasses.replace(experiment, mesh=MeshConfig(strategy))
        plans[strategy] = plan.measure(split, tokenizer, PHASE, Topology('h100:2'))
    whole = plans['dp'].memory['parameters']
    assert plans['dp'].formula
    assert plans['fsdp'].memory['parameters'] < 0.55 * whole
    assert plans['tp'].memory['parameters'] < whole
    (reduced,) = plans['dp'].collectives
    assert (reduced.kind, reduced.data, reduced.sent) == ('all-reduce', whole, whole)
    assert {c.kind for c in plans['fsdp'].collectives} == {'all-gather', 'reduce-scatter'}
    assert plans['dp'].seconds == max(plans['dp'].times.values())


def test_a_search_ends_where_memory_does():
    experiment, tokenizer = tiny()
    phase = Phase(0, 10, 32, 1_500_000)
    found = list(plan.largest(experiment, tokenizer, phase, Topology('a100:2')))
    sizes = [size for _, size, _ in found]
    assert [name for name, _, _ in found] == ['none', 'dots', 'full']
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    for _, _, p in found:
        assert p.fits
        grow = p.memory['activations'] + p.memory['scores of the vocabulary']
        assert p.used + grow > p.topology.chip.memory


def test_the_door_says_hours_and_what_they_cost():
    done = run_here(
        'bert_jax.bin.plan', '--config=configs/pretrain/bert.py:base', '--topology=h100:8', '--price=2'
    )
    assert not done.returncode, done.stderr
    assert 'BY FORMULA' in done.stdout
    assert '900,000 steps of 256 rows of 128 tokens' in done.stdout
    assert '100,000 steps of 256 rows of 512 tokens' in done.stdout
    assert 'at 2 a chip-hour' in done.stdout
    done = run_here(
        'bert_jax.bin.plan',
        '--config=configs/pretrain/bert.py:base',
        '--topology=h100:8,h100:16',
        '--strategies=dp,fsdp',
    )
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('--config=configs/pretrain/bert.py', '--topology=v5:4x4'), "There is no chip 'v5'"),
        (('--config=configs/pretrain/bert.py', '--topology=v5e'), 'does not say how many chips'),
        (('--config=configs/pretrain/bert.py', '--topology=v5e:2x2x2'), 'write v5e:4x4.'),
        (('--config=configs/pretrain/bert.py', '--topology=v5p:4x4'), 'write v5p:4x4x4.'),
        (('--config=configs/pretrain/bert.py', '--topology=h100:2x4'), 'write h100:4.'),
        (('--config=configs/pretrain/bert.py', '--topology=, '), '--topology names none'),
        (('--config=configs/nope.py', '--topology=v5:4x4'), "There is no chip 'v5'"),
        (('--config=configs/pretrain/bert.py', '--topology=h100:7'), 'does not divide by 7'),
        (('--config=configs/pretrain/bert.py', '--topology=h100:8', '--strategies=ddp'), "'ddp'"),
        (
            ('--config=configs/pretrain/bert.py', '--topology=h100:8', '--config.train.accumulate=7'),
            'accumulate=7',
        ),
        (('--config=configs/finetune/sst2.py', '--topology=h100:8'), 'is no pretraining'),
    ],
)
def test_bad_input_is_one_sentence(words, said):
    done = run_here('bert_jax.bin.plan', *words)
    assert done.returncode == 1
    assert said in done.stderr


def test_topologies_are_written_in_any_way():
    assert plan.topologies(' V5E:4x4, h100:8,') == [Topology('v5e:4x4'), Topology('h100:8')]


def test_without_the_tpu_compiler_it_is_said_how_to_get_it():
    if importlib.util.find_spec('libtpu'):
        pytest.skip('libtpu is installed')
    done = run_here('bert_jax.bin.plan', '--config=configs/pretrain/bert.py', '--topology=v5e:4x4')
    assert 'pip install "jax[tpu]"' in done.stderr


@pytest.mark.parametrize(
    ('device', 'name'),
    [
        ('TPU v5 lite', 'v5e'),
        ('TPU v5e', 'v5e'),
        ('TPU v5p', 'v5p'),
        ('TPU v5', 'v5p'),
        ('NVIDIA H100 80GB HBM3', 'h100'),
    ],
)
def test_a_device_is_known_by_its_name(device, name):
    assert chips.of_device(device) == chips.CHIPS[name]
    assert chips.of_device('a new chip') is None


def test_a_mesh_that_does_not_divide_leaves_the_others():
    words = [f'--config={TINY}:pretrain', "--config.data.sources=('none.txt',)", '--topology=h100:16,h100:3']
    done = run_here('bert_jax.bin.plan', *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].split()[:3] == ['h100:16', 'dp', '16']
    assert 'train.batch_size' in lines[3]


def test_by_formula_parts_of_a_batch_add_up():
    overrides = ["data.sources=('none.txt',)", 'mesh.strategy=tp', 'mesh.data=1', 'mesh.tensor=2']
    plans = []
    for parts in (1, 4):
        read = experiment_lib.read(f'{TINY}:pretrain', [*overrides, f'train.accumulate={parts}'])
        plans.append(plan.measure(*abstract_step.stand_in(read), PHASE, Topology('h100:2')))
    assert plans[0].times['links'] == pytest.approx(plans[1].times['links'])
    assert plans[0].memory['activations'] > plans[1].memory['activations']


def test_by_formula_scores_of_the_vocabulary_take_memory_by_the_chunk():
    gpt, bert = ('task.name=clm', 'model.name=gpt'), ()
    held = [
        plan.measure(*tiny(*settings), PHASE, Topology('h100:2')).memory['scores of the vocabulary']
        for settings in (gpt, (*gpt, 'task.chunk=8'), bert)
    ]
    assert held[0] == 2 * 4 * (16 // 2) * 31 * 256  # of all tokens but the first, 200 words padded
    assert held[1] == pytest.approx(held[0] * 8 / 31)
    assert held[2] < held[0] / 3  # where something is masked


@pytest.fixture
def libtpu():
    if not importlib.util.find_spec('libtpu'):
        pytest.skip('needs the TPU compiler: pip install "jax[tpu]"')


@pytest.mark.parametrize('name', ['v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'])
def test_devices_are_as_on_a_tpu_vm(name, libtpu):
    topology = plan.Topology(name)
    devices = topology.devices()
    assert len(devices) == 4 * topology.chip.devices
    assert chips.of_device(devices[0].device_kind) == topology.chip


def test_a_mesh_need_not_follow_the_axes_of_the_tpu(libtpu):
    devices = plan.Topology('v4:4x4x4').devices()
    mesh = partitioning.make(MeshConfig('fsdp', fsdp=32), devices).mesh
    assert mesh.shape == {'data': 2, 'fsdp': 32, 'tensor': 1}
    assert {*mesh.devices.flat} == {*devices}


def test_one_axis_of_the_mesh_spans_the_slices(libtpu):
    plan.Topology('v5e:2x2').devices()  # sets what the compiler looks for
    devices = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2', num_slices=2).devices
    for config in (MeshConfig(), MeshConfig('fsdp', data=2), MeshConfig('fsdp'), MeshConfig('tp', tensor=2)):
        mesh = partitioning.make(config, devices).mesh
        slices = np.vectorize(lambda d: d.slice_index)(mesh.devices).reshape(2, 4)
        assert (slices == [[0] * 4, [1] * 4]).all(), config
    with pytest.raises(UserError, match=r'set mesh.data=2'):
        partitioning.make(MeshConfig('tp'), devices)


def test_a_tpu_that_is_not_is_said_before_a_batch_that_does_not_divide(libtpu):
    with pytest.raises(UserError, match=r"knows no 'v5e:3x5'"):
        next(plan.whole(*tiny(), [PHASE], Topology('v5e:3x5')))


def test_the_tpu_compiler_plans_a_step(libtpu):
    words = [f'--config={TINY}:pretrain', "--config.data.sources=('none.txt',)", '--topology=v5e:2x2']
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-m', 'bert_jax.bin.plan', *words], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert 'by the TPU compiler' in done.stdout, done.stderr
    assert 'all-reduce' in done.stdout
    assert math.isfinite(float(done.stdout.split('takes at least ')[1].split(' ms')[0]))
