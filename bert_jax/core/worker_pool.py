"""A pool of worker processes that end with their parent process."""

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any


def start_pool(
    workers: int, initializer: Callable[..., Any], *args: Any
) -> concurrent.futures.ProcessPoolExecutor:
    """Start a pool of spawned Python processes, each of which calls `initializer(*args)` once.

    The workers end when this process ends, even if it is killed. They ignore SIGTERM and SIGINT, which only
    this process handles.
    """
    context = multiprocessing.get_context('spawn')
    # Pickled here, so that unpickling, which may import JAX and take seconds, happens in `_init_worker` after the
    # signal handlers are set.
    pickled = pickle.dumps((initializer, args))
    return concurrent.futures.ProcessPoolExecutor(workers, context, _init_worker, (pickled,))


def _init_worker(pickled: bytes) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    initializer, args = pickle.loads(pickled)
    initializer(*args)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
