"""Inject a fault into this process: from a chosen write on, nothing more is written in a folder.

Python reports each file that it opens, renames or deletes to audit hooks. The hook of this module counts those in the
watched folders, and raises an exception instead of the n-th. Files that Orbax writes in C++ are not among them, but their
folders and the renaming that completes a checkpoint are.
"""

import contextlib
import os
import pathlib
import random
import sys
import threading
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

from bert_jax.core import metrics
from bert_jax.evals.evaluator import Evaluator
from bert_jax.train import loop
from bert_jax.train.checkpoint import Checkpointer

_EVENTS = ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.truncate', 'os.link', 'os.symlink')
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Death(BaseException):
    """Stands for the end of the process: no handler of errors expects it."""


class Fault:
    """A fault at one of the moments that are counted: a write in a folder, or a call of a part of the training loop.

    Attributes:
      count: number of moments so far.
      writes: number of writes among them.
      folder: the watched folder.
      once: whether later writes succeed.
      has_struck: whether the fault has occurred. From then on, all writes in the folder fail, unless it is `once`.

    Args:
      folder: the watched folder.
      moment: number of the moment, counted from 1; 0 is never.
      error: makes the exception from the path of the file that is written, which is empty in a call. It may return None, to
        raise nothing.
      calls: whether to count calls as well as writes.
      once: whether later writes succeed.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        moment: int,
        error: Callable[[str], BaseException | None] = Death,
        calls: bool = True,
        once: bool = False,
    ):
        self.folder, self.once = str(folder), once
        self.count, self.writes, self.has_struck = 0, 0, False
        self._moment, self._error, self._calls = moment, error, calls
        self._lock = threading.Lock()

    def __call__(self, path: str = '', is_call: bool = False) -> None:
        """Count a moment; raise if the fault occurs, or has occurred."""
        if is_call and not self._calls:
            return
        with self._lock:
            if not self.has_struck:
                self.count += 1
                self.writes += not is_call
                self.has_struck = self.count == self._moment
                if not self.has_struck:
                    return
            elif self.once:
                return
        if (e := self._error(path)) is not None:
            raise e


_faults: list[
    Fault
] = []  # also those that have struck, because threads of the process that "died" may still run


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _faults or event not in _EVENTS:
        return
    if event == 'open' and not (isinstance(args[2], int) and args[2] & _WRITES):
        return
    for path in args[: 2 if event == 'os.rename' else 1]:
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(path)
            for fault in [*_faults]:
                if name.startswith(fault.folder + os.sep):
                    fault(name)
            return


_install = [
    lambda: sys.addaudithook(_audit)
]  # a hook cannot be removed, so it is added once, when it is needed


@contextlib.contextmanager
def inject(fault: Fault) -> Iterator[None]:
    """Let a fault occur in the `with` block. If it has struck, its folder stays as it is at the end of the block."""
    while _install:
        _install.pop()()
    # Cases that are over have no folder.
    _faults[:] = [f for f in _faults if os.path.exists(os.path.dirname(f.folder))]
    _faults.append(fault)
    patches = [
        unittest.mock.patch.object(metrics.Writer, '__call__', _around(metrics.Writer.__call__, fault)),
        unittest.mock.patch.object(Checkpointer, 'save', _around(Checkpointer.save, fault)),
        unittest.mock.patch.object(Evaluator, '__call__', _around(Evaluator.__call__, fault)),
        unittest.mock.patch.object(loop.Batches, 'iterate', _each(loop.Batches.iterate, fault)),
        unittest.mock.patch.object(threading, 'excepthook'),
        unittest.mock.patch.object(sys, 'unraisablehook'),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        try:
            yield
        finally:
            if not fault.has_struck:
                _faults.remove(fault)


def _around(function: Any, fault: Fault) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        fault(is_call=True)
        result = function(*args, **kwargs)
        fault(is_call=True)
        return result

    return call


def _each(function: Any, fault: Fault) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        for item in function(*args, **kwargs):
            fault(is_call=True)
            yield item

    return call


class _Entries:
    """The iterator of `os.scandir` without one of the entries."""

    def __init__(self, entries: Any, hidden: str | None):
        self._entries, self._hidden = entries, hidden
        self.close = entries.close

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(entry for entry in self._entries if entry.name != self._hidden)

    def __enter__(self) -> '_Entries':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def stale_listings(rng: random.Random, folder: pathlib.Path) -> Iterator[None]:
    """Let listings of some folders lack the newest entry, or name one that is deleted, as those of network file systems may.

    A folder is listed as it is from the third listing on, and as soon as this process has changed it.
    """
    listdir, scandir, lock = os.listdir, os.scandir, threading.Lock()
    hidden, deleted, seen = {}, {}, dict[str, int]()
    for path in [folder, *(p for p in folder.rglob('*') if p.is_dir())]:
        if (entries := sorted(path.iterdir(), key=lambda p: p.stat().st_mtime_ns)) and rng.random() < 0.3:
            hidden[str(path)] = entries[-1].name
        if rng.random() < 0.3:
            deleted[str(path)] = rng.choice(('1', '3', 'params', '7.orbax-checkpoint-tmp', 'old.json'))

    def is_stale(path: str) -> bool:
        with lock:
            seen[path] = seen.get(path, 0) + 1
            return seen[path] < 3

    def name_of(path: Any) -> str:
        return os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ''

    def stale_listdir(path: Any = '.') -> list[Any]:
        names, name = listdir(path), name_of(path)
        if name.startswith(str(folder)) and is_stale(name):
            names = [n for n in names if n != hidden.get(name)]
            names += [deleted[name]] if name in deleted else []
        return names

    def stale_scandir(path: Any = '.') -> Any:
        name = name_of(path)
        is_old = name.startswith(str(folder)) and is_stale(name)
        return _Entries(scandir(path), hidden.get(name) if is_old else None)

    def mark_changed(path: str) -> None:
        with lock:
            seen[os.path.dirname(path)] = 3

    changes = Fault(folder, 1, mark_changed, calls=False)
    with (
        inject(changes),
        unittest.mock.patch.object(os, 'listdir', stale_listdir),
        unittest.mock.patch.object(os, 'scandir', stale_scandir),
    ):
        yield
    if changes in _faults:
        _faults.remove(changes)
