"""Tests of the summary of a profiler trace."""

import types

import jax
import jax.numpy as jnp
import pytest

from bert_jax.benchmarks import trace


def test_operations_of_a_program_on_the_cpu(tmp_path):
    product = jax.jit(lambda x: jnp.sin(x @ x))
    x = jnp.ones((256, 256))
    product(x).block_until_ready()
    with jax.profiler.trace(tmp_path):
        for _ in range(2):
            product(x).block_until_ready()
    operations = trace.summarize(tmp_path, 2)
    assert any('dot' in operation['name'] or 'fusion' in operation['name'] for operation in operations)
    assert sum(operation['share'] for operation in operations) == pytest.approx(1, abs=0.01)
    assert min(operation['calls'] for operation in operations) >= 1
    assert len(trace.format_summary(operations).splitlines()) == len(operations)


def make_plane(name, **lines):
    events = [
        [types.SimpleNamespace(name=n, duration_ns=d, stats=[('hlo_op', n)]) for n, d in line.items()]
        for line in lines.values()
    ]
    lines = [
        types.SimpleNamespace(name=n.replace('_', ' '), events=e) for n, e in zip(lines, events, strict=True)
    ]
    return types.SimpleNamespace(name=name, lines=lines)


@pytest.mark.parametrize(
    'device',
    [
        make_plane('/device:GPU:0', Stream_1={'fusion': 2.0}, XLA_Ops={'fusion': 2.0}, Steps={'1': 9.0}),
        make_plane('/device:TPU:0', XLA_Ops={'fusion': 2.0}, XLA_Modules={'jit_step': 9.0}),
    ],
    ids=['gpu', 'tpu'],
)
def test_operations_of_a_device_count_once_and_those_of_the_host_do_not(device):
    profile = types.SimpleNamespace(planes=[make_plane('/host:CPU', thread={'convert': 5.0}), device])
    assert [*trace._operations(profile)] == [('fusion', 2.0)]
