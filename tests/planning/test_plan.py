"""Tests of plans: collectives of a compiled program, formulas, and the TPU compiler where it is installed."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import types
import unittest.mock

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
from bert_jax.planning import abstract_step, compilation, plan
from bert_jax.planning.collectives import Collective, count_collectives
from bert_jax.planning.plan import Topology
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.loop import Phase
from tests.runs import ROOT, TINY, run_in_process

PHASE = Phase(0, 10, 32, 16)


def compile_to_hlo(f, mesh, out, *arguments):
    """Compile `f` for a mesh and return its HLO text; each argument is a pair (shape, spec)."""
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in arguments
    ]
    return jax.jit(f, out_shardings=NamedSharding(mesh, out)).lower(*shapes).compile().as_text()


def test_collectives_and_their_bytes():
    mesh = partitioning.make(MeshConfig('fsdp_tp', data=2, fsdp=4)).mesh
    text = compile_to_hlo(lambda x: x.sum(0), mesh, P(), ((8, 64), P(('data', 'fsdp'))))
    (collective,) = count_collectives(text, 8)
    assert collective == ('all-reduce', 1, 256, 2 * 256 * 7 / 8, 2 * 256 * 7 / 8)  # the CPU overlaps nothing
    text = compile_to_hlo(lambda x: x * 2, mesh, P(), ((8, 64), P('fsdp')))
    (collective,) = count_collectives(text, 8)
    assert collective == ('all-gather', 1, 8 * 64 * 4, *[8 * 64 * 4 * 3 / 4] * 2)
    assert not count_collectives(compile_to_hlo(lambda x: x * 2, mesh, P('fsdp'), ((8, 64), P('fsdp'))), 8)


def test_collectives_in_a_loop_count_once_per_iteration():
    mesh = partitioning.make(MeshConfig()).mesh

    def f(x, w):
        return jax.lax.scan(lambda y, w: (jnp.tanh(w @ y), None), x, w)[0]

    text = compile_to_hlo(f, mesh, P(), ((64,), P()), ((5, 64, 64), P(None, None, 'data')))
    found = {c.kind: c for c in count_collectives(text, 8)}
    assert (found['all-reduce'].num_operations, found['all-reduce'].data_bytes) == (5, 5 * 256)


# HLO in the notation of the TPU compiler.
TPU_PROGRAM = """
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


def test_notation_of_the_tpu_compiler_is_parsed():
    found = {c.kind: c for c in count_collectives(TPU_PROGRAM, 16)}
    # The gather appears twice and is sent once. It is part of a fusion, and so overlaps with computation.
    assert found['all-gather'] == ('all-gather', 1, 128, 128 * 15 / 16, 0)
    assert found['all-reduce'] == ('all-reduce', 1, 404, *[2 * 404 * 15 / 16] * 2)
    assert found['reduce-scatter'] == ('reduce-scatter', 1, 640, 600, 600)
    assert found['collective-permute'] == ('collective-permute', 16, 256, 256, 0)


@pytest.mark.parametrize(('between', 'exposed'), [('fusion(%x), kind=kLoop, calls=%f', 0), ('copy(%x)', 128)])
def test_collective_overlaps_with_a_computation_before_its_end(between, exposed):
    program = f"""
ENTRY %main (p: bf16[64]) -> bf16[64] {{
  %permute-start.1 = (bf16[64]{{0}}, bf16[64]{{0}}, u32[], u32[]) collective-permute-start(%p), channel_id=1
  %y = bf16[64]{{0}} {between}
  %permute-done.1 = bf16[64]{{0}} collective-permute-done(%permute-start.1)
  %z = bf16[64]{{0}} fusion(%y), kind=kLoop, calls=%f
}}
"""
    assert count_collectives(program, 4) == [('collective-permute', 1, 128, 128, exposed)]


def test_a_program_is_compiled_once(monkeypatch, tmp_path):
    compiled = []

    def schedule(lower, num_devices):
        compiled.append(lower().as_text())
        if 'large' in compiled[-1]:
            return {'error': 'each chip would need 20G of 16G'}
        return {**sizes, 'collectives': [('all-reduce', 2, 8.0, 14.0, 14.0)]}

    def compile_(lowered, num_devices):
        compiled.append('in full')
        return {**sizes, 'collectives': []}

    sizes = {
        f.name: i for i, f in enumerate(dataclasses.fields(compilation.Report)) if f.name != 'collectives'
    }
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: '1')
    monkeypatch.setattr(compilation, '_schedule', schedule)
    monkeypatch.setattr(compilation, '_compile', compile_)
    small, large = (
        lambda name=name: types.SimpleNamespace(as_text=lambda: name) for name in ('small', 'large')
    )
    reports = [compilation.compile_program(small, name, 4) for name in ('v5e:2x2', 'v5e:2x2', 'v6e:2x2')]
    assert reports[0] == reports[1] == compilation.Report(**sizes, collectives=[('all-reduce', 2, 8, 14, 14)])
    for _ in range(2):
        with pytest.raises(compilation.OutOfMemory, match='20G of 16G'):
            compilation.compile_program(large, 'v5e:2x2', 4)
    assert compiled == ['small', 'small', 'large']
    for _ in range(2):
        compilation.compile_program(small, 'v5e:2x2', 4, in_full=True)
    assert compiled[3:] == ['in full']
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: '2')
    compilation.compile_program(small, 'v5e:2x2', 4)
    assert compiled[4:] == ['small']


BUFFERS = """BufferAssignment:
allocation 0: size 512, thread-local:
allocation 1: size 1024, parameter 0, shape |f32[256]| at ShapeIndex {}, maybe-live-out:
 value: <1848 param @0> (size=1024,offset=0): f32[256]{0}
allocation 2: size 64, parameter 1, shape |s32[16]| at ShapeIndex {}:
allocation 3: size 8, maybe-live-out:
allocation 4: size 2048, preallocated-temp:
allocation 5: size 4096, color 1, preallocated-temp:
allocation 6: size 16, constant:
"""


def test_report_of_a_schedule(tmp_path):
    x = jnp.ones((16, 16))
    program = jax.jit(lambda x: jnp.tanh(x @ x)).lower(x).compile().as_text()
    file = tmp_path / f'module_0003.jit_f.{compilation._DUMP}'
    assert compilation._read_schedule(tmp_path, 1) is None
    (tmp_path / f'module_0003.jit_f.{compilation._BUFFERS}').write_text(BUFFERS)
    for end in range(0, len(program.rstrip()), 100):
        file.write_text(program[:end])
        assert compilation._read_schedule(tmp_path, 1) is None
    file.write_text(program)
    report = compilation.Report(**compilation._read_schedule(tmp_path, 1))
    assert dataclasses.astuple(report)[:4] == (1024 + 64, 8, 1024, 2048 + 16)
    assert report.flops == pytest.approx(2 * 16**3, rel=0.1)
    assert report.code_bytes
    assert report.collectives == []


def lower_small_program():
    return jax.jit(jnp.sin).lower(jnp.ones(8))


def test_report_of_a_compiler_that_writes_no_schedule():
    report = compilation._schedule(lower_small_program, 1)
    assert report['argument_bytes'] == 32


def lower_nothing():
    raise ValueError('no program')


def test_failure_of_the_compiler_is_reported(capfd):
    with pytest.raises(RuntimeError, match='ended with status 1'):
        compilation._schedule(lower_nothing, 1)
    assert 'no program' in capfd.readouterr().err


@pytest.mark.parametrize(
    'message', ['Used 20G of 16G hbm.', 'for HLO temporaries (20G) exceeds available HBM (16G).']
)
def test_memory_that_a_program_would_need_is_reported(message):
    def compile_():
        raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {message}')

    with unittest.mock.patch.object(jax.config, 'update'):  # would stop the cache of later tests
        report = compilation._compile(types.SimpleNamespace(compile=lambda compiler_options: compile_()), 4)
    assert report == {'error': 'each chip would need 20G of 16G'}


def tiny_experiment(*settings):
    base = ["data.sources=('none.txt',)", *settings]
    return abstract_step.complete_experiment(experiment_lib.read(f'{TINY}:pretrain', base))


@pytest.mark.parametrize(
    'settings', [(), ('task.name=clm', 'model.name=gpt'), ('task.name=denoise', 'model.name=bart')]
)
def test_abstract_step_has_the_memory_of_its_state(settings):
    experiment, tokenizer = tiny_experiment(*settings)
    step = abstract_step.make_step(experiment, tokenizer, PHASE, partitioning.make(experiment.mesh))
    assert len(tokenizer) == 200
    assert step.batch['valid'].shape == (16, 32)
    stats = step.lower().compile().memory_analysis()
    assert sum(step.state_bytes) < stats.argument_size_in_bytes < sum(step.state_bytes) + 50_000


@pytest.mark.parametrize('chunk', [0, 8])
def test_gradient_of_the_token_embedding_is_reduced_once_for_each_use(chunk):
    experiment, tokenizer = tiny_experiment('task.name=clm', 'model.name=gpt', f'task.loss_chunk={chunk}')
    step = abstract_step.make_step(experiment, tokenizer, PHASE, partitioning.make(MeshConfig('dp')))
    (found,) = count_collectives(step.lower().compile().as_text(), 8)
    table = math.prod(step.layout.abstract.params['gpt/token_embedding'].shape) * 4
    # For the lookup and for the logits. The compiler for TPUs adds both before the reduction.
    assert found.data_bytes < step.gradient_bytes + 1.02 * table


def test_step_has_the_schedule_of_the_whole_run():
    experiment, tokenizer = tiny_experiment('train.phases=((10, 32, 16), (30, 32, 16))')
    first, second = (
        abstract_step.make_step(experiment, tokenizer, phase, partitioning.make(experiment.mesh)).lower()
        for phase in (Phase(0, 10, 32, 16), Phase(10, 40, 32, 16))
    )
    assert first.as_text() == second.as_text()


def test_formula_shards_parameters_and_counts_collectives():
    experiment, tokenizer = tiny_experiment()
    plans = {}
    for strategy in ('dp', 'fsdp', 'tp'):
        sharded = dataclasses.replace(experiment, mesh=MeshConfig(strategy))
        plans[strategy] = plan.plan_step(sharded, tokenizer, PHASE, Topology('h100:2'))
    unsharded = plans['dp'].memory['parameters']
    assert plans['fsdp'].memory['parameters'] < 0.55 * unsharded
    assert plans['tp'].memory['parameters'] < unsharded
    (reduced,) = plans['dp'].collectives
    assert (reduced.kind, reduced.data_bytes, reduced.sent_bytes) == ('all-reduce', unsharded, unsharded)
    assert 'overlapping' not in '\n'.join(plans['dp'].report())  # formulas have no schedule
    assert {c.kind for c in plans['fsdp'].collectives} == {'all-gather', 'reduce-scatter'}
    assert plans['dp'].seconds == max(plans['dp'].bounds.values())


def test_computation_waits_for_exposed_communication():
    def make_plan(*exposed):
        reductions = [Collective('all-reduce', 1, 0.0, 0.4e9, bytes_) for bytes_ in exposed]
        return plan.Plan(Topology('v5e:4x4'), 1, {'parameters': 15.8 * 2**30}, 1.97e12, 0.82e9, reductions)

    assert make_plan(0.0).seconds == pytest.approx(10e-3)
    assert make_plan(0.2e9).seconds == pytest.approx(11e-3)
    assert make_plan(0.2e9, math.nan).seconds == pytest.approx(11e-3)  # without a schedule
    assert make_plan(*[0.0] * 10).seconds == pytest.approx(20e-3)  # the links take longer than all else
    assert make_plan(0.2e9).overlapped_seconds == pytest.approx(10e-3)
    report = '\n'.join(make_plan(0.2e9).report())
    assert 'takes at least 11.00 ms, limited by compute' in report
    assert '10.00 ms if all of it overlapped' in report
    assert 'DOES NOT FIT' in report  # the compiler keeps a part of the memory


@pytest.mark.parametrize(
    ('remat', 'replicated', 'split'), [('none', 10, 24), ('dots', 4, 14), ('full', 2, 0)]
)
def test_tensor_parallelism_splits_a_part_of_the_activations(remat, replicated, split):
    experiment, tokenizer = tiny_experiment(f'model.remat={remat}')
    per_token = {}
    for strategy in ('tp', 'dp'):
        sharded = dataclasses.replace(experiment, mesh=MeshConfig(strategy, data=1, tensor=2))
        memory = plan.plan_step(sharded, tokenizer, PHASE, Topology('h100:2')).memory
        layers, width = experiment.model.num_blocks, experiment.model.width
        per_token[strategy] = memory['activations'] / (16 * 32 * layers * width * 2)  # float32
    assert per_token == {'tp': replicated + split / 2, 'dp': replicated + split}


def test_formula_counts_no_gradients_of_frozen_parameters():
    full, frozen = (
        plan.plan_step(*tiny_experiment('mesh.strategy=dp', *settings), PHASE, Topology('h100:2'))
        for settings in ((), ('optim.frozen=bert/',))
    )
    assert full.memory['gradients'] == full.memory['parameters'] == frozen.memory['parameters']
    trained = frozen.memory['gradients']
    assert 0 < trained < 0.2 * full.memory['gradients']
    assert frozen.memory['optimizer'] == pytest.approx(2 * trained, abs=8)
    assert frozen.collectives[0].data_bytes == trained
    assert frozen.traffic < full.traffic
    assert frozen.flops < 0.6 * full.flops


def test_largest_batches_fill_the_memory():
    experiment, tokenizer = tiny_experiment()
    phase = Phase(0, 10, 32, 1_500_000)
    found = list(plan.find_largest_batches(experiment, tokenizer, phase, Topology('a100:2')))
    sizes = [size for _, size, _ in found]
    assert [name for name, _, _ in found] == ['none', 'dots', 'full']
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    for _, _, p in found:
        assert p.fits
        growth = p.memory['activations'] + p.memory['vocabulary logits']
        assert p.memory_used + growth > p.topology.chip.memory


def test_command_prints_hours_and_cost():
    done = run_in_process(
        'bert_jax.bin.plan', '--config=configs/pretrain/bert.py:base', '--topology=h100:8', '--price=2'
    )
    assert not done.returncode, done.stderr
    assert 'ESTIMATED BY FORMULA' in done.stdout
    assert '900,000 steps of 256 rows of 128 tokens' in done.stdout
    assert '100,000 steps of 256 rows of 512 tokens' in done.stdout
    assert 'full run at peak speed: 47.5 minutes, 6.3 chip-hours, 13 at 2 per chip-hour' in done.stdout
    assert 'full run at half of peak speed: 1.6 hours, 13 chip-hours, 25 at 2 per chip-hour' in done.stdout
    done = run_in_process(
        'bert_jax.bin.plan',
        '--config=configs/pretrain/bert.py:base',
        '--topology=h100:8,h100:16',
        '--strategies=dp,fsdp',
    )
    assert len(done.stdout.splitlines()) == 6


def test_fine_tuning_is_planned_with_the_rows_of_its_data(tmp_path, word_tokenizer):
    word_tokenizer.save(tmp_path / 'tokenizer.json')
    records = [{'text': ' '.join(['w1'] * (2 + i % 9)), 'label': i % 2} for i in range(64)]
    (tmp_path / 'train.jsonl').write_text(''.join(f'{json.dumps(r)}\n' for r in records))
    settings = (f'data.source={tmp_path}/{{split}}.jsonl', f'tokenizer.path={tmp_path}/tokenizer.json')
    steps = {}
    for packing in ('auto', 'off'):
        config = experiment_lib.read(f'{TINY}:classify', [*settings, f'train.packing={packing}'])
        experiment, tokenizer = abstract_step.complete_experiment(config)
        partitioner = partitioning.make_abstract(experiment.mesh, 2)
        steps[packing] = abstract_step.make_step(experiment, tokenizer, PHASE, partitioner)
    assert steps['off'].batch['tokens'].shape == (16, 32)
    num_rows, length = steps['auto'].batch['tokens'].shape
    assert num_rows % 2 == 0
    assert num_rows * length < 16 * 12
    assert steps['auto'].flops < steps['off'].flops
    with pytest.raises(UserError, match='fine-tuning needs the TPU compiler'):
        plan.plan_step(experiment, tokenizer, PHASE, Topology('h100:8'))


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--config=configs/pretrain/bert.py', '--topology=v5:4x4'), "Unknown chip 'v5'"),
        (('--config=configs/pretrain/bert.py', '--topology=v5e'), 'lacks the number of chips'),
        (('--config=configs/pretrain/bert.py', '--topology=v5e:2x2x2'), 'as in v5e:4x4.'),
        (('--config=configs/pretrain/bert.py', '--topology=v5p:4x4'), 'as in v5p:4x4x4.'),
        (('--config=configs/pretrain/bert.py', '--topology=h100:2x4'), 'as in h100:4.'),
        (('--config=configs/pretrain/bert.py', '--topology=, '), '--topology is empty'),
        (('--config=configs/nope.py', '--topology=v5:4x4'), "Unknown chip 'v5'"),
        (('--config=configs/pretrain/bert.py', '--topology=h100:7'), 'not divisible by 7'),
        (('--config=configs/pretrain/bert.py', '--topology=h100:8', '--strategies=ddp'), "'ddp'"),
        (
            ('--config=configs/pretrain/bert.py', '--topology=h100:8', '--config.train.accumulation_steps=7'),
            'accumulation_steps=7',
        ),
        (('--config=configs/finetune/sst2.py', '--topology=v5e:2x2'), 'A downstream task needs a tokenizer'),
    ],
)
def test_bad_input_is_a_one_line_error(args, message):
    done = run_in_process('bert_jax.bin.plan', *args)
    assert done.returncode == 1
    assert message in done.stderr


def test_topologies_are_parsed_in_any_case():
    assert plan.parse_topologies(' V5E:4x4, h100:8,') == [Topology('v5e:4x4'), Topology('h100:8')]


def test_message_without_the_tpu_compiler_says_how_to_install_it():
    if importlib.util.find_spec('libtpu'):
        pytest.skip('libtpu is installed')
    done = run_in_process('bert_jax.bin.plan', '--config=configs/pretrain/bert.py', '--topology=v5e:4x4')
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
def test_chip_of_a_device_kind(device, name):
    assert chips.chip_of_device(device) == chips.CHIPS[name]
    assert chips.chip_of_device('a new chip') is None


@pytest.mark.parametrize(
    ('device', 'teraflops'),
    [
        ('NVIDIA H100 PCIe', 756),
        ('NVIDIA H100 NVL', 835),
        ('NVIDIA H200 NVL', 835),
        ('NVIDIA H200', 989),
        ('Tesla V100-PCIE-16GB', 112),
        ('Tesla V100-SXM2-16GB', 125),
    ],
)
def test_slower_variants_of_a_gpu_have_their_own_peak(device, teraflops):
    assert chips.chip_of_device(device).flops == teraflops * 1e12


def test_table_continues_after_a_mesh_that_does_not_divide():
    args = [f'--config={TINY}:pretrain', "--config.data.sources=('none.txt',)", '--topology=h100:16,h100:3']
    done = run_in_process('bert_jax.bin.plan', *args)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].split()[:3] == ['h100:16', 'dp', '16']
    assert 'train.batch_size' in lines[3]


def test_formula_with_gradient_accumulation():
    overrides = ["data.sources=('none.txt',)", 'mesh.strategy=tp', 'mesh.data=1', 'mesh.tensor=2']
    plans = []
    for steps in (1, 4):
        experiment = experiment_lib.read(
            f'{TINY}:pretrain', [*overrides, f'train.accumulation_steps={steps}']
        )
        plans.append(
            plan.plan_step(*abstract_step.complete_experiment(experiment), PHASE, Topology('h100:2'))
        )
    assert plans[0].bounds['links'] == pytest.approx(plans[1].bounds['links'])
    assert plans[0].memory['activations'] > plans[1].memory['activations']


def test_formula_counts_the_logits_of_one_loss_chunk():
    gpt, bert = ('task.name=clm', 'model.name=gpt'), ()
    logits = [
        plan.plan_step(*tiny_experiment(*settings), PHASE, Topology('h100:2')).memory['vocabulary logits']
        for settings in (gpt, (*gpt, 'task.loss_chunk=8'), bert)
    ]
    # All tokens but the first; the vocabulary of 200 is padded to 256.
    assert logits[0] == 2 * 4 * (16 // 2) * 31 * 256
    assert logits[1] == pytest.approx(logits[0] * 8 / 31)
    assert logits[2] < logits[0] / 3  # masked positions only


@pytest.fixture
def libtpu():
    if not importlib.util.find_spec('libtpu'):
        pytest.skip('needs the TPU compiler: pip install "jax[tpu]"')


@pytest.mark.parametrize('name', ['v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'])
def test_devices_match_those_of_a_tpu_vm(name, libtpu):
    topology = plan.Topology(name)
    devices = topology.devices()
    assert len(devices) == 4 * topology.chip.devices_per_chip
    assert chips.chip_of_device(devices[0].device_kind) == topology.chip


def test_mesh_shape_is_independent_of_the_topology(libtpu):
    devices = plan.Topology('v4:4x4x4').devices()
    mesh = partitioning.make(MeshConfig('fsdp', fsdp=32), devices).mesh
    assert mesh.shape == {'data': 2, 'fsdp': 32, 'tensor': 1}
    assert {*mesh.devices.flat} == {*devices}


def test_one_axis_of_the_mesh_spans_the_slices(libtpu):
    plan.Topology('v5e:2x2').devices()  # sets the environment of the compiler
    devices = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2', num_slices=2).devices
    for config in (MeshConfig(), MeshConfig('fsdp', data=2), MeshConfig('fsdp'), MeshConfig('tp', tensor=2)):
        mesh = partitioning.make(config, devices).mesh
        slices = np.vectorize(lambda d: d.slice_index)(mesh.devices).reshape(2, 4)
        assert (slices == [[0] * 4, [1] * 4]).all(), config
    with pytest.raises(UserError, match=r'set mesh.data=2'):
        partitioning.make(MeshConfig('tp'), devices)


@pytest.mark.parametrize('lists_parameters', [False, True])
def test_parameters_are_listed_on_request(lists_parameters):
    experiment, tokenizer = tiny_experiment()
    lines = plan.describe_run(
        experiment, tokenizer, [PHASE], Topology('h100:2'), lists_parameters=lists_parameters
    )
    assert ('bert/token_embedding' in '\n'.join(lines)) == lists_parameters


def test_unknown_tpu_is_reported_before_an_indivisible_batch(libtpu):
    with pytest.raises(UserError, match=r"rejects the topology 'v5e:3x5'"):
        next(plan.describe_run(*tiny_experiment(), [PHASE], Topology('v5e:3x5')))


def test_tpu_compiler_plans_a_step(libtpu):
    args = [f'--config={TINY}:pretrain', "--config.data.sources=('none.txt',)", '--topology=v5e:2x2']
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-m', 'bert_jax.bin.plan', *args], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert 'from the TPU compiler' in done.stdout, done.stderr
    assert 'all-reduce' in done.stdout
    assert 'without overlapping computation' in done.stdout
    assert math.isfinite(float(done.stdout.split('takes at least ')[1].split(' ms')[0]))
