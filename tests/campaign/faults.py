"""Inject a fault into this process: from a chosen write on, nothing more is written in a folder.

Python reports each file that it opens, renames or deletes to audit hooks. The hook of this module counts those in the
watched folders, and raises an exception instead of the n-th. Files that Orbax writes in C++ are not among them, but their
folders and the renaming that completes a checkpoint are.
"""

import contextlib
import os
import pathlib
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
