"""Compile programs for absent TPUs, and keep what the compiler reports of them on disk.

The compiler first optimizes a program, schedules its operations and assigns memory to its buffers, and then writes
machine code for each operation. The second part takes most of the time and only determines the size of the program. So
by default the compiler runs in a process that ends after the first part, and the size is estimated.
"""

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax
from jax._src.lib import _jax, hlo

from bert_jax.core import paths
from bert_jax.planning import collectives
from bert_jax.planning.collectives import Collective

# Bytes of machine code per operation of the optimized program. BERT base for v5e:4x4 has 3,905 with 2 layers, 3,771 with
# 4 and 3,817 with 12.
_CODE_BYTES = 3_800
_DUMP = 'after_optimizations_after_buffer_assignment.txt'
_BUFFERS = 'after_optimizations-buffer-assignment.txt'
_ALLOCATION = re.compile(r'^allocation \d+: size (\d+)(.*):$', re.MULTILINE)


class OutOfMemory(Exception):
    """The program does not fit into the memory of a device. The message says what it needs, if known."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the compiler reports of a program.

    Attributes:
      argument_bytes: bytes of the arguments on each device.
      output_bytes: bytes of the results on each device, without those that reuse the memory of an argument.
      donated_bytes: bytes of the results that reuse the memory of an argument.
      temporary_bytes: bytes of temporary memory on each device.
      code_bytes: bytes of the machine code; an estimate unless the program is compiled in full.
      flops: FLOP of each device.
      collectives: collectives of the program.
    """

    argument_bytes: int
    output_bytes: int
    donated_bytes: int
    temporary_bytes: int
    code_bytes: int
    flops: float
    collectives: Sequence[Collective]


def compile_program(
    lower: Callable[[], Any], topology: str, num_devices: int, in_full: bool = False
) -> Report:
    """Compile a program, or read what the compiler has reported of the same program before.

    Reports are in `cache_dir()/plans`. JAX's own cache cannot be used, as it reads programs only for devices that are
    present.

    Args:
      lower: returns the lowered program; it is pickled.
      topology: name of the topology.
      num_devices: number of devices of the topology.
      in_full: whether to generate the machine code, which takes several times as long, see above.

    Raises:
      OutOfMemory: if the program does not fit into the memory of a device.
    """
    lowered = lower()
    environment = [os.environ.get(name, '') for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')]
    versions = [importlib.metadata.version(name) for name in ('jaxlib', 'libtpu')]
    code = [inspect.getsource(module) for module in (collectives, sys.modules[__name__])]
    parts = (lowered.as_text(), topology, *versions, *environment, *code, str(in_full))
    key = hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:32]
    file = paths.cache_dir() / 'plans' / f'{key}.json'
    if file.exists():
        report = json.loads(file.read_text())
    else:
        report = _compile(lowered, num_devices) if in_full else _schedule(lower, num_devices)
        paths.write_atomic(file, json.dumps(report))
    if 'error' in report:
        raise OutOfMemory(report['error'])
    return Report(**report | {'collectives': [Collective(*c) for c in report['collectives']]})


def _compile(lowered: Any, num_devices: int, **options: Any) -> dict[str, Any]:
    """Compile a program, and return the fields of its report, or 'error' if it needs more memory than a device has."""
    jax.config.update('jax_enable_compilation_cache', False)  # warns that it cannot read the program
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as e:
        if 'RESOURCE_EXHAUSTED' not in str(e):
            raise
        used = re.search(r'Used (\S+) of (\S+) hbm|\((\S+)\) exceeds available HBM \((\S+)\)', str(e))
        if not used:
            raise OutOfMemory from e
        needed, available = filter(None, used.groups())
        return {'error': f'each chip would need {needed} of {available}'}
    stats = compiled.memory_analysis()
    return {
        'argument_bytes': stats.argument_size_in_bytes,
        'output_bytes': stats.output_size_in_bytes - stats.alias_size_in_bytes,
        'donated_bytes': stats.alias_size_in_bytes,
        'temporary_bytes': stats.temp_size_in_bytes,
        'code_bytes': stats.generated_code_size_in_bytes,
        'flops': compiled.cost_analysis().get('flops', 0.0),
        'collectives': collectives.count_collectives(compiled.as_text(), num_devices),
    }


def _schedule(lower: Callable[[], Any], num_devices: int) -> dict[str, Any]:
    """Compile a program in a process that ends as soon as the schedule is written; see `_compile` for the result."""
    context = multiprocessing.get_context('spawn')
    with tempfile.TemporaryDirectory() as name:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_compile_and_send, args=(lower, num_devices, name, sender), daemon=True
        )
        process.start()
        sender.close()
        try:
            report = None
            while report is None and process.is_alive():
                process.join(0.2)
                report = _read_schedule(pathlib.Path(name), num_devices)
            # A program that does not fit may have no schedule, and another compiler may write none.
            return report or receiver.recv()
        except EOFError as e:
            raise RuntimeError(f'The compiler ended with status {process.exitcode}.') from e
        finally:
            process.kill()
            process.join()


def _compile_and_send(lower: Callable[[], Any], num_devices: int, folder: str, sender: Connection) -> None:
    """Compile a program, and send the report; the compiler writes the schedule to `folder` before."""
    sender.send(_compile(lower(), num_devices, xla_dump_to=folder, xla_dump_hlo_as_text=True))


def _read_schedule(folder: pathlib.Path, num_devices: int) -> dict[str, Any] | None:
    """Return the report of the scheduled program in `folder`; None if the compiler has not finished writing it."""
    file = next(folder.glob(f'*{_DUMP}'), None)
    program = file.read_text() if file else ''
    if not file or '\nENTRY' not in program or not program.rstrip('\n').endswith('\n}'):
        return None
    sizes = dict.fromkeys(('argument', 'donated', 'output', 'temporary'), 0)
    buffers = file.with_name(file.name.replace(_DUMP, _BUFFERS)).read_text()
    for size, description in _ALLOCATION.findall(buffers):
        is_result = 'maybe-live-out' in description
        if 'parameter' in description:
            sizes['argument'] += int(size)
            sizes['donated'] += int(size) * is_result
        elif is_result:
            sizes['output'] += int(size)
        elif 'color' not in description and 'thread-local' not in description:  # a color is another memory
            sizes['temporary'] += int(size)
    module = hlo.hlo_module_from_text(program)
    costs = _jax.hlo_module_cost_analysis(jax.devices('cpu')[0].client, module)
    return {
        **{f'{kind}_bytes': size for kind, size in sizes.items()},
        'code_bytes': _CODE_BYTES * program.count(' = '),
        'flops': costs.get('flops', 0.0),
        'collectives': collectives.count_collectives(program, num_devices),
    }
