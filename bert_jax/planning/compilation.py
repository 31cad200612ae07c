"""Compile programs for absent TPUs, and keep what the compiler reports of them on disk."""

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from bert_jax.core import paths
from bert_jax.planning import collectives
from bert_jax.planning.collectives import Collective


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
      code_bytes: bytes of the program.
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


def compile_program(lowered: Any, topology: str, num_devices: int) -> Report:
    """Compile a program, or read what the compiler has reported of the same program before.

    Reports are in `cache_dir()/plans`. JAX's own cache cannot be used, as it reads programs only for devices that are
    present.

    Args:
      lowered: lowered program.
      topology: name of the topology.
      num_devices: number of devices of the topology.

    Raises:
      OutOfMemory: if the program does not fit into the memory of a device.
    """
    environment = [os.environ.get(name, '') for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')]
    versions = [importlib.metadata.version(name) for name in ('jaxlib', 'libtpu')]
    parts = (lowered.as_text(), topology, *versions, *environment, inspect.getsource(collectives))
    key = hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:32]
    file = paths.cache_dir() / 'plans' / f'{key}.json'
    if file.exists():
        report = json.loads(file.read_text())
    else:
        report = _compile(lowered, num_devices)
        paths.write_atomic(file, json.dumps(report))
    if 'error' in report:
        raise OutOfMemory(report['error'])
    return Report(**report | {'collectives': [Collective(*c) for c in report['collectives']]})


def _compile(lowered: Any, num_devices: int) -> dict[str, Any]:
    """Compile a program, and return the fields of its report, or 'error' if it needs more memory than a device has."""
    jax.config.update('jax_enable_compilation_cache', False)  # warns that it cannot read the program
    try:
        compiled = lowered.compile()
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
