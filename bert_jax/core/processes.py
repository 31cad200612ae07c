"""Processes that work for this one."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any


def pool(workers: int, begin: Callable[..., Any], *args: Any) -> concurrent.futures.ProcessPoolExecutor:
    """So many new Python processes, each of which calls `begin(*args)` once.

    They end with this process, however it ends; signals to stop are for it alone.
    """
    context = multiprocessing.get_context('spawn')
    return concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (begin, args))


def _begin(begin: Callable[..., Any], args: tuple[Any, ...]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*args)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
