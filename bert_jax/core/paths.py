"""Folders: where things are kept, and one process at a time in them."""

import contextlib
import fcntl
import logging
import os
import pathlib
from collections.abc import Iterator

from bert_jax.core.errors import UserError


def cache_dir() -> pathlib.Path:
    """Where what is built on this machine is kept: BERT_JAX_CACHE or ~/.cache/bert_jax."""
    return pathlib.Path(os.environ.get('BERT_JAX_CACHE') or '~/.cache/bert_jax').expanduser()


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file that is there whole or not at all, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Makes a working directory if need be, and keeps it from every other process on this machine, to the end of this one at the latest.

    Raises:
      UserError: if another has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f'Another process works in {str(folder)!r}: wait for it, or choose another --workdir.'
            ) from e
        yield
    finally:
        os.close(lock)


def is_held(folder: pathlib.Path) -> bool:
    """Whether a process on this machine has `held` a folder."""
    try:
        with (folder / '.lock').open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as e:
        return isinstance(e, BlockingIOError)
    return False


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder, waits until no other process works in it, and keeps others waiting.

    The lock ends with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info('waiting for another process that works in %s', folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
