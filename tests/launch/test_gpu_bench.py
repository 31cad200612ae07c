"""Tests of launch/gpu_bench.sh, with a program in place of Python that records its arguments."""

import os
import pathlib
import subprocess

import pytest

from bert_jax.bin import bench

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = """#!/bin/bash
printf '%s\\n' "$*" >>"$CALLS"
case $* in *"$FAILS"*) exit 3 ;; esac
"""


def run_script(folder, **variables):
    """Run the script; return the status and name of each part, and the arguments of each measurement."""
    stub, calls = folder / 'python', folder / 'calls'
    stub.write_text(PYTHON)
    stub.chmod(0o755)
    calls.touch()
    environment = {'PATH': os.environ['PATH'], 'PYTHON': str(stub), 'CALLS': str(calls), 'FAILS': 'nothing'}
    subprocess.run(
        ['bash', 'launch/gpu_bench.sh', str(folder / 'out')],
        cwd=ROOT, env=environment | variables, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    parts = [line.split() for line in (folder / 'out' / 'parts.txt').read_text().splitlines()]
    measured = [line.split() for line in calls.read_text().splitlines() if 'bert_jax.bin.bench' in line]
    return [(status, name) for status, _, name in parts], [line[2:] for line in measured]


def test_a_failed_part_does_not_stop_the_others(tmp_path):
    parts, measured = run_script(tmp_path, FAILS='--programs=tuned')
    for status, name in parts:
        assert status == ('failed-3' if name.endswith('tuned') else 'ok')
    assert len(measured) == sum(name not in ('versions', 'tests') for _, name in parts) > 10


def test_the_command_accepts_all_arguments(tmp_path):
    variables = {'MODEL': 'remat=dots scan_layers=true', 'DURATION': '0.1', 'DEVICE': 'cpu'}
    _, measured = run_script(tmp_path, **variables)
    for arguments in measured:
        flags = bench.make_parser().parse_args(arguments)
        assert flags.model == ['remat=dots', 'scan_layers=true']
        assert flags.out == tmp_path / 'out' / 'results.jsonl'
        assert (flags.device, flags.seconds) == ('cpu', 0.1)
        assert 10 < flags.limit < 200


def test_parts_can_be_chosen(tmp_path):
    parts, measured = run_script(tmp_path, PARTS='loop padded')
    assert parts == [('ok', 'padded'), ('ok', 'loop')]
    assert ['--rows=padded' in arguments for arguments in measured] == [True, False]


def test_nothing_starts_after_the_deadline(tmp_path):
    parts, measured = run_script(tmp_path, DEADLINE='39')
    assert not measured
    assert {status for status, _ in parts} == {'left-out'}


def test_a_part_ends_at_the_deadline(tmp_path):
    (tmp_path / 'bin').mkdir()
    timeout = tmp_path / 'bin' / 'timeout'
    timeout.write_text('#!/bin/bash\necho "$3" >>"$CALLS.limits"\nexit 124\n')
    timeout.chmod(0o755)
    parts, _ = run_script(tmp_path, DEADLINE='60', PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    assert {status for status, _ in parts} == {'too-long'}
    limits = [int(line) for line in (tmp_path / 'calls.limits').read_text().splitlines()]
    assert 0 < max(limits) <= 60


@pytest.mark.parametrize('script', sorted((ROOT / 'launch').glob('*.sh')), ids=lambda path: path.name)
def test_bash_parses_the_scripts(script):
    subprocess.run(['bash', '-n', script], check=True)
