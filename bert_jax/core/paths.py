"""Local paths and paths in buckets, the cache folder, JSON files, atomic writes, and locks on folders between processes."""

import contextlib
import fcntl
import functools
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from bert_jax.core import buckets
from bert_jax.core.errors import UserError


def make_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the value of a flag or setting as a path, local or in a bucket, see `core.buckets`.

    Raises:
      UserError: if the package for this kind of bucket is not installed.
    """
    return buckets.make_path(path) if buckets.is_in_bucket(path) else pathlib.Path(path)


def absolute(path: pathlib.Path) -> pathlib.Path:
    """Return the absolute path."""
    return path if buckets.is_in_bucket(path) else path.absolute()


def check_new_folder(folder: pathlib.Path, flag: str) -> None:
    """Raise UserError that names `flag` if a folder exists and is not empty, so that no file in it is replaced."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'{str(folder)!r} exists and is not empty. Choose another {flag}.')


def find_files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Find the files with a name such as config.json or *.md in a folder and its subfolders, sorted."""
    return buckets.find_files(folder, name) if buckets.is_in_bucket(folder) else sorted(folder.rglob(name))


def cache_dir() -> pathlib.Path:
    """Return the folder of files that are built once per machine: $BERT_JAX_CACHE or ~/.cache/bert_jax.

    A user without a home folder that can be written has a private folder among the temporary files instead.
    """
    if folder := os.environ.get('BERT_JAX_CACHE'):
        return pathlib.Path(folder).expanduser()
    return _default_cache_dir()


@functools.cache
def _default_cache_dir() -> pathlib.Path:
    try:
        folder = pathlib.Path('~/.cache/bert_jax').expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: this user has no home folder
        pass
    folder = pathlib.Path(tempfile.gettempdir()) / f'bert_jax-{os.getuid()}'
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # cached programs and pickles are executed
        raise UserError(
            f'{str(folder)!r} belongs to another user. Set BERT_JAX_CACHE to a folder of your own.'
        )
    return folder


def write_atomic(path: pathlib.Path, content: str | bytes) -> None:
    """Write a file atomically, creating its parent folders: a crash leaves the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    if buckets.is_in_bucket(path):
        buckets.file_system(path).pipe_file(str(path), data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_bytes(data)
    temporary.replace(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged: not UTF-8, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding='utf-8-sig'))
    except RecursionError as e:
        raise ValueError('too many values inside of one another') from e
    if not isinstance(value, dict):
        raise ValueError(f'a value of type {type(value).__name__} instead of an object')
    return value


@contextlib.contextmanager
def lock_workdir(folder: pathlib.Path) -> Iterator[None]:
    """Create a working directory if needed and lock it against other processes on this machine.

    The operating system releases the lock when the process ends, however it ends. In a bucket, the lock holds against
    processes on all machines, see `buckets.lock`.

    Raises:
      UserError: if another process holds the lock.
    """
    if buckets.is_in_bucket(folder):
        with buckets.lock(folder):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f'Another process is using {str(folder)!r}. Wait until it ends, or choose another --workdir.'
            ) from e
        yield


def is_workdir_locked(folder: pathlib.Path) -> bool:
    """Return whether a process on this machine has locked a working directory (see `lock_workdir`)."""
    if buckets.is_in_bucket(folder):
        return buckets.is_locked(folder)
    try:
        with (folder / '.lock').open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as e:
        return isinstance(e, BlockingIOError)
    return False


@contextlib.contextmanager
def lock_folder(folder: pathlib.Path) -> Iterator[None]:
    """Create a folder if needed and lock it, waiting while another process on this machine holds the lock.

    The operating system releases the lock when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info('waiting for another process that is using %s', folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
