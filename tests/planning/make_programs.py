"""Update programs.json: what the train step of each pretraining config consists of, and what it costs.

Run it after a change that is meant to change the train step, and commit the file:

    python -m tests.planning.make_programs

Each program is the step of the first phase of a config, with two layers and 64 rows. Only programs that have changed
are compiled. That takes seconds for the eight CPU devices of the tests and for v5e:4x4, which needs the TPU compiler
(docs/guides/planning.md). Without the compiler, a changed program has no costs on v5e:4x4 in the file.

If a program has changed and none of its counts has, write the programs before and after the change to two folders, and
compare them:

    python -m tests.planning.make_programs --text=FOLDER
"""

import argparse
import collections
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import re

from tests import conftest  # noqa: F401  sets the environment that JAX reads

from jax.sharding import AbstractDevice  # isort: skip

from bert_jax.core import partitioning
from bert_jax.planning import abstract_step, compilation, plan
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import loop
from tests.runs import ROOT

FILE = pathlib.Path(__file__).with_name('programs.json')
CPU, TPU = 'cpu:8', 'v5e:4x4'
DEVICES = {CPU: (8, AbstractDevice('cpu', None, 'cpu')), TPU: (16, AbstractDevice('TPU v5 lite', 1, 'tpu'))}
# Config and overrides of each program. The configs replicate their parameters; the last two programs shard them.
BERT = 'configs/pretrain/bert.py'
PROGRAMS = {
    **{f'configs/pretrain/{path.name}': () for path in sorted((ROOT / 'configs/pretrain').glob('*.py'))},
    # 64 rows are not divisible by the number of parts in the config.
    'configs/pretrain/bart.py': ('train.accumulation_steps=2',),
    'configs/pretrain/modernbert.py': ('train.accumulation_steps=2',),
    f'{BERT} --config.mesh.strategy=fsdp': ('mesh.strategy=fsdp',),
    f'{BERT} --config.mesh.strategy=fsdp_tp --config.mesh.tensor=2': (
        'mesh.strategy=fsdp_tp',
        'mesh.tensor=2',
    ),
}
# Counted operations: those that multiply, move or convert data, draw random numbers or restrict the compiler.
OPERATIONS = (
    *(
        'concatenate',
        'convert',
        'custom_call',
        'dot_general',
        'dynamic_slice',
        'dynamic_update_slice',
        'gather',
    ),
    *(
        'optimization_barrier',
        'pad',
        'reduce',
        'reshape',
        'rng_bit_generator',
        'scatter',
        'sharding_constraint',
    ),
    *('slice', 'sort', 'transpose', 'while', 'xor'),
)


def versions():
    """Return the versions of the packages on which the programs depend."""
    return {name: importlib.metadata.version(name) for name in ('flax', 'jax', 'optax')}


def make_step(name, make_partitioner):
    """Build the step of a program; `make_partitioner` is a function of the config of the mesh."""
    settings = [*PROGRAMS[name], 'model.layers=2']
    experiment = experiment_lib.read(str(ROOT / name.split()[0]), settings)
    experiment, tokenizer = abstract_step.complete_experiment(experiment)
    phase = dataclasses.replace(loop.make_phases(experiment, 0)[0], batch_size=64)
    return abstract_step.make_step(experiment, tokenizer, phase, make_partitioner(experiment.mesh))


def lower(name, target):
    """Return the normalized text of a program before compilation."""
    count, device = DEVICES[target]
    step = make_step(name, lambda mesh: partitioning.make_abstract(mesh, count, device))
    return normalize(step.lower(device.platform).as_text())


def normalize(text):
    """Replace the names of functions by numbers, and remove the code of Pallas kernels, which has line numbers."""
    functions = re.findall(r'(?:module|func\.func \w+) @([\w.]+)', text)
    numbers = {name: f'@{i}' for i, name in enumerate(functions)}
    text = re.sub(r'@([\w.]+)', lambda match: numbers.get(match[1], match[0]), text)
    return re.sub(r'backend_config = "[^"]*"', 'backend_config = ""', text)


def describe(text):
    """Return the hash of a program and the number of its operations by kind."""
    counts = collections.Counter(re.findall(r'(?<!#)(?:stablehlo|sdy)\.(\w+)', text))
    found = {kind: counts[kind] for kind in OPERATIONS if counts[kind]}
    return {'hash': hashlib.sha256(text.encode()).hexdigest()[:16], 'operations': found}


def lower_for_tpu(name):
    """Lower a program for the TPU compiler."""
    return make_step(name, lambda mesh: partitioning.make(mesh, plan.Topology(TPU).devices())).lower()


def compile_costs(name, target):
    """Compile a program, and return its costs on each device: FLOP, bytes of temporary memory, and collectives."""
    count, _ = DEVICES[target]
    if target == TPU:
        report = compilation._schedule(functools.partial(lower_for_tpu, name), count)
    else:
        report = compilation._compile(make_step(name, partitioning.make).lower(), count)
    costs = {'FLOP': int(report['flops']), 'temporary bytes': report['temporary_bytes']}
    for collective in report['collectives']:
        costs |= {
            collective.kind: collective.num_operations,
            f'{collective.kind} bytes': int(collective.data_bytes),
        }
    return costs


def compare(old, new):
    """Say in one line which operations and costs of a program have changed."""
    changes = []
    for part in ('operations', 'costs'):
        before, after = old.get(part, {}), new.get(part, {})
        for key in sorted({*before, *after} if before and after else ()):
            a, b = before.get(key, 0), after.get(key, 0)
            share = f' ({b / a - 1:+.1%})' if a and key not in OPERATIONS else ''
            changes += [f'{key} {a:,} -> {b:,}{share}'] if a != b else []
    return ', '.join(changes) or ('new' if not old else 'same counts, but other shapes, constants or order')


def read():
    """Read programs.json: versions, and the description and costs of each program by target."""
    return json.loads(FILE.read_text()) if FILE.exists() else {'versions': {}, 'programs': {}}


def update():
    """Write programs.json, compiling the programs that have changed."""
    before, has_tpu_compiler = read(), importlib.util.find_spec('libtpu')
    is_current = before['versions'] == versions()
    programs = {}
    for name in PROGRAMS:
        programs[name] = {}
        for target in DEVICES:
            old = before['programs'].get(name, {}).get(target, {}) if is_current else {}
            new = describe(lower(name, target))
            is_same = old.get('hash') == new['hash']
            new['costs'] = old['costs'] if is_same else {}
            if not new['costs'] and (target == CPU or has_tpu_compiler):
                new['costs'] = compile_costs(name, target)
            if not is_same:
                note = '' if new['costs'] else ' (its costs need jax[tpu])'
                print(f'{name} on {target}: {compare(old, new)}{note}', flush=True)
            programs[name][target] = new
    FILE.write_text(json.dumps({'versions': versions(), 'programs': programs}, indent=1) + '\n')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--text', type=pathlib.Path, help='write the programs to this folder, and update nothing'
    )
    folder = parser.parse_args().text
    if folder is None:
        update()
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        for target in DEVICES:
            file = re.sub(r'\W+', '_', f'{name} {target}')
            (folder / f'{file}.mlir').write_text(lower(name, target))


if __name__ == '__main__':
    main()
