"""Phases of equal row length continue one stream of rows."""

import types

import numpy as np

from bert_jax.data.rows import HEADER
from bert_jax.train.experiment import TrainConfig
from bert_jax.train.loop import Phase, _batches

ROWS = np.zeros((64, HEADER + 8), np.uint32)
ROWS[:, 0], ROWS[:, HEADER] = 8, np.arange(64)


def make_example(row, rng):
    return {'number': int(row[HEADER]), 'noise': rng.random()}


TASK = types.SimpleNamespace(example=make_example, example_at=lambda progress: make_example)
PROGRAMS = types.SimpleNamespace(task=lambda phase: TASK)
EXPERIMENT = types.SimpleNamespace(
    train=TrainConfig(), in_phase=lambda settings: types.SimpleNamespace(data=None)
)
MESH = types.SimpleNamespace(local_rows=np.arange)


def read(phases, start=0):
    """Return the rows and the noise of each step."""
    batches = _batches(
        phases, lambda length, _: [*ROWS[:, : HEADER + length]], PROGRAMS, EXPERIMENT, start, MESH
    )
    return {
        step: list(zip(batch['number'].tolist(), batch['noise'].tolist(), strict=True))
        for step, batch in batches
    }


def test_phases_of_one_length_read_different_rows_and_noise():
    phases = [Phase(0, 4, 8, 8), Phase(4, 6, 4, 8), Phase(6, 8, 8, 16)]
    found = read(phases)
    first, third = ([pair for step in steps for pair in found[step]] for steps in (range(1, 5), (7, 8)))
    assert sorted(number for number, _ in first + third) == [*range(64)]  # together an epoch
    assert len({noise for _, noise in first + third}) == 64
    assert found[5] + found[6] == first[:16]  # another length has its own stream
    resumed = read(phases, start=7)
    assert resumed == {8: found[8]}
