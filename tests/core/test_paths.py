"""The cache folder, and locks on folders between processes."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile

import pytest

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.core.paths import cache_dir, lock_folder, lock_workdir
from tests.runs import ROOT


def test_cache_folder_from_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    assert cache_dir() == tmp_path


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """Environment of a user whose home folder cannot be written; returns the folder of temporary files."""
    monkeypatch.delenv('BERT_JAX_CACHE', raising=False)
    monkeypatch.setenv('HOME', '/dev/null')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    paths._default_cache_dir.cache_clear()
    yield tmp_path
    paths._default_cache_dir.cache_clear()


def test_cache_folder_without_home_is_private(no_home, monkeypatch):
    folder = cache_dir()
    assert folder.parent == no_home
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    paths._default_cache_dir.cache_clear()
    monkeypatch.delenv('HOME')
    monkeypatch.setattr(pwd, 'getpwuid', lambda _: {}['uid'])  # a user id without a name
    assert cache_dir() == folder


def test_cache_folder_of_another_user_is_rejected(no_home):
    (no_home / f'bert_jax-{os.getuid()}').symlink_to(no_home)
    with pytest.raises(UserError, match='belongs to another user. Set BERT_JAX_CACHE'):
        cache_dir()


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


def test_json_files_that_are_no_objects_are_damaged(tmp_path):
    file = tmp_path / 'a.json'
    for content in (
        b'',
        b'{',
        b'[1]',
        b'null',
        b'{"a": "\xff"}',
        b'[' * 5000,
        b'{"a": ' + b'9' * 5000 + b'}',
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match='.'):
            paths.read_json(file)
    file.write_bytes('\ufeff{"a": 1}'.encode())
    assert paths.read_json(file) == {'a': 1}
