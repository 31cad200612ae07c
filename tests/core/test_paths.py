"""The cache folder, and locks on folders between processes."""

import subprocess
import sys

import pytest

from bert_jax.core.errors import UserError
from bert_jax.core.paths import cache_dir, lock_folder, lock_workdir
from tests.runs import ROOT


def test_cache_folder_from_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    assert cache_dir() == tmp_path


def test_second_process_waits_for_folder(tmp_path):
    code = (
        'import logging, pathlib; logging.basicConfig(level=logging.INFO);'
        'from bert_jax.core.paths import lock_folder\n'
        f'with lock_folder(pathlib.Path({str(tmp_path / "rows")!r})): print("locked")'
    )
    with lock_folder(tmp_path / 'rows'):
        other = subprocess.Popen(
            [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert 'waiting for another process' in other.stderr.readline()
        assert other.poll() is None
    assert other.communicate(timeout=20)[0] == 'locked\n'


def test_second_lock_of_working_directory_is_rejected(tmp_path):
    error = pytest.raises(UserError, match='Another process is using')
    with lock_workdir(tmp_path), lock_folder(tmp_path), error, lock_workdir(tmp_path):
        pass
    with lock_workdir(tmp_path):
        pass
