"""The campaign finds faults: it fails where code is broken, and passes a few cases of each part as it is."""

import gc
import os
import pathlib
import random

import pytest

from bert_jax.core import metrics
from bert_jax.data.formats import json_records
from tests.campaign import disks, faults, harness, inputs, kills, loads

PARTS = {'input': (inputs, 40), 'kills': (kills, 2), 'disks': (disks, 3)}


# A run that fails in the middle of a write leaves unfinished coroutines and threads of Orbax.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
@pytest.mark.slow
@pytest.mark.parametrize('name', PARTS)
def test_some_cases_of_each_part(name):
    part, count = PARTS[name]
    report = harness.run_part(name, part, 0, 0.0, count=count)
    gc.collect()  # while their warnings are ignored, not in a later test
    assert not report.failures
    assert sum(report.tries.values()) + len(report.skipped) >= 1


@pytest.mark.slow
@pytest.mark.parametrize('name', loads.LOADS)
def test_loads_on_a_small_scale(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loads, 'SCALE', 1e-3)
    loads.LOADS[name](random.Random(0), tmp_path)


class Part:
    """A part with two cases that fail in different ways."""

    LIMIT = 1

    @staticmethod
    def prepare(folder):
        return {}

    @staticmethod
    def try_case(rng, folder, shared):
        if (number := rng.randrange(3)) == 0:
            raise ValueError('broken')
        while number == 1:
            pass
        return 'good'


def test_failures_and_hangs_are_reported_with_names_that_repeat_them():
    report = harness.run_part('x', Part, 3, 0.0, count=12)
    assert {p.rpartition(': ')[2] for p in report.failures.values()} == {'broken', 'no end after 1 seconds'}
    assert report.tries['good'] + len(report.failures) == sum(report.tries.values()) == 12
    case = next(iter(report.failures))
    again = harness.run_part('x', Part, 3, 0.0, first=int(case.rpartition('-')[2]), count=1)
    assert {*again.failures} == {case}


def test_lost_records_are_noticed(tmp_path, monkeypatch, tokenizer):
    def read_lines(file, path):  # skips what it cannot read
        for place, fields in json_records.read_lines(file, path):
            if isinstance(fields, dict):
                yield place, fields

    monkeypatch.setitem(inputs.records.formats._READERS, '.jsonl', read_lines)
    problems = []
    for seed in range(60):
        (folder := tmp_path / f'{seed}').mkdir()
        try:
            inputs._try_records('jsonl', random.Random(seed), folder, tokenizer)
        except AssertionError as e:
            problems.append(str(e))
    assert any('lost' in problem for problem in problems)


def test_nothing_is_written_after_a_fault(tmp_path):
    def write_three():
        for i in range(3):
            (tmp_path / f'{i}').write_text('')

    with faults.inject(fault := faults.Fault(tmp_path, 2)), pytest.raises(faults.Death):
        write_three()
    assert [p.name for p in tmp_path.iterdir()] == ['0']
    with pytest.raises(faults.Death):
        (tmp_path / 'later').mkdir()
    faults._faults.remove(fault)
    with faults.inject(faults.Fault(tmp_path, 2, lambda path: OSError(5, 'broken', path), once=True)):
        with pytest.raises(OSError, match='broken') as e:
            write_three()
        assert pathlib.Path(e.value.filename).name == '1'
        (tmp_path / '1').write_text('')
    assert {*os.listdir(tmp_path)} == {'0', '1'}
    assert metrics.Writer.__call__.__module__ == metrics.__name__


def test_listings_are_stale_twice_or_until_the_folder_changes(tmp_path, monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(rng, 'random', lambda: 0.0)
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    (newest := tmp_path / 'c').write_text('')
    os.utime(newest, (2**32, 2**32))
    with faults.stale_listings(rng, tmp_path):
        assert newest.exists()
        assert {*os.listdir(tmp_path)} & {'a', 'b', 'c'} == {'a', 'b'}
        assert {entry.name for entry in os.scandir(tmp_path)} == {'a', 'b'}
        assert {*os.listdir(tmp_path)} == {'a', 'b', 'c'}
        (tmp_path / 'a' / 'd').write_text('')
        assert os.listdir(tmp_path / 'a') == ['d']
    assert os.listdir.__module__ == 'posix'
