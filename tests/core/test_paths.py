"""Folders: where things are kept, and one process at a time in them."""

import subprocess
import sys

import pytest

from bert_jax.core.errors import UserError
from bert_jax.core.paths import alone, cache_dir, held
from tests.runs import ROOT


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    assert cache_dir() == tmp_path


def test_a_second_process_waits_for_the_first(tmp_path):
    code = (
        'import logging, pathlib; logging.basicConfig(level=logging.INFO);'
        'from bert_jax.core.paths import alone\n'
        f'with alone(pathlib.Path({str(tmp_path / "rows")!r})): print("in")'
    )
    with alone(tmp_path / 'rows'):
        other = subprocess.Popen(
            [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert 'waiting for another process' in other.stderr.readline()
        assert other.poll() is None
    assert other.communicate(timeout=20)[0] == 'in\n'


def test_a_working_directory_has_one_process(tmp_path):
    refused = pytest.raises(UserError, match='Another process works in')
    with held(tmp_path), alone(tmp_path), refused, held(tmp_path):
        pass
    with held(tmp_path):
        pass
