"""Worker processes that compute results in order, a limited number ahead, and end with their parent process."""

import collections
import concurrent.futures.process
import multiprocessing
import multiprocessing.resource_tracker
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bert_jax.core.errors import UserError

# Signals that ask a job to stop: from a cluster, Ctrl-C, and the end of the terminal's session.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def map_ahead(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, ahead: int, death_message: str
) -> Iterator[Any]:
    """Yield `function(item)` for each item in order.

    Args:
      function: function of one item. Each worker process unpickles it once.
      items: items, which are read only as they are needed.
      workers: number of processes that call the function; 0 calls it in one background thread.
      ahead: number of further items to submit before waiting for a result.
      death_message: message of the error if a worker process dies.

    Raises:
      UserError: if a worker process dies.
    """
    pool: concurrent.futures.Executor
    call: Callable[[Any], Any]
    if workers:
        pool, call = start_pool(workers, function), _call
    else:
        pool, call = concurrent.futures.ThreadPoolExecutor(1), function
    pending: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(call, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as e:
        raise UserError(death_message) from e
    finally:
        pool.shutdown(cancel_futures=True)


def start_pool(workers: int, function: Callable[[Any], Any]) -> concurrent.futures.ProcessPoolExecutor:
    """Start a pool of spawned Python processes, each of which unpickles `function` for `_call`.

    The workers end when this process ends, even if it is killed. They ignore the `STOP_SIGNALS`, which only
    this process handles.
    """
    context = multiprocessing.get_context('spawn')
    # Pickled here, so that unpickling, which may import JAX and take seconds, happens in `_init_worker` after the
    # signal handlers are set.
    return concurrent.futures.ProcessPoolExecutor(workers, context, _init_worker, (pickle.dumps(function),))


def start_resource_tracker() -> None:
    """Start the resource tracker process of `multiprocessing` with all `STOP_SIGNALS` ignored.

    By default, the tracker ignores all of them except SIGHUP. When a terminal closes, the tracker would then end
    before the run is saved.
    """
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the tracker inherits SIG_IGN
    multiprocessing.resource_tracker.ensure_running()
    signal.signal(signal.SIGHUP, handler)


_function: Callable[[Any], Any]


def _call(item: Any) -> Any:
    return _function(item)


def _init_worker(pickled: bytes) -> None:
    global _function
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _function = pickle.loads(pickled)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
