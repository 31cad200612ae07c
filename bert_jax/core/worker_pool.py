"""Processes that work for this one."""

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any


def pool(workers: int, begin: Callable[..., Any], *args: Any) -> concurrent.futures.ProcessPoolExecutor:
    """So many new Python processes, each of which calls `begin(*args)` once.

    They end with this process, however it ends; signals to stop are for it alone.
    """
    context = multiprocessing.get_context('spawn')
    # As bytes: what it takes to unpickle them, JAX perhaps, is imported when signals are seen to.
    work = pickle.dumps((begin, args))
    return concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (work,))


def _begin(work: bytes) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin, args = pickle.loads(work)
    begin(*args)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
