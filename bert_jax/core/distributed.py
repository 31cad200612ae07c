"""Run one job on several processes: how they connect, and what only the lead process does.

The processes connect through JAX's distributed runtime. They must share the working directory: on a network
file system, or in a bucket.
"""

import contextlib
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import jax

from bert_jax.core import cli
from bert_jax.core.errors import UserError, first_line

HEARTBEAT_SECONDS = 20  # a process that has sent no heartbeat for this long counts as dead
_SILENCE_SECONDS = 10  # time to wait for the other processes before a message says so
_DAY_MS = 24 * 3600 * 1000
_SAME_ERROR_SECONDS = 5  # time for the other processes to report an error that they all have
# Patterns that match the JAX errors about a lost process, and the index of that process in the error message.
_MISSING_PROCESS = re.compile(
    r'heartbeat|unhealthy|barrier|gloo|nccl|DEADLINE_EXCEEDED|UNAVAILABLE', re.IGNORECASE
)
_PROCESS_INDEX = re.compile(r'(?:heartbeats\)|timed out task names):\s*(?:\S*task:)?(\d+)')
_barriers = itertools.count()


@contextlib.contextmanager
def join_job(coordinator: str = '', processes: int = 0, process: int = -1) -> Iterator[None]:
    """Connect this process to the others of its job; enter this context before the first JAX computation.

    Without arguments, JAX detects the processes of a cluster: SLURM's `srun`, the workers of a TPU VM, or Open MPI.
    Outside a cluster, the job has only this process; in a cluster, `processes=1` alone makes it so. A process that waits
    for the others for `_SILENCE_SECONDS` logs a warning.

    If a process fails or is killed, the other processes end too: each reports a one-line error, and after
    `HEARTBEAT_SECONDS` JAX names the lost process and ends all that still run.

    Args:
      coordinator: HOST:PORT of process 0, the same for all processes.
      processes: number of processes.
      process: index of this process, counted from 0.

    Raises:
      UserError: if only some of the arguments are set, other than `processes=1`. If the other processes do not connect,
        JAX ends this one after five minutes.
    """
    is_set = bool(coordinator), processes > 0, process >= 0
    is_alone = processes == 1 and not coordinator and process < 1
    if not is_alone and any(is_set):
        if not (all(is_set) and process < processes and coordinator.rpartition(':')[2].isdigit()):
            raise UserError(
                '--coordinator=HOST:PORT, --processes=N and --process=I (from 0 to N-1) belong together. '
                'Set all three or none.'
            )
        logging.info('process %d of %d: connecting to the others at %s', process, processes, coordinator)
    if is_alone or not _connect(coordinator, processes, process):
        yield
        return
    if not is_lead():
        logging.getLogger().setLevel(logging.WARNING)
    try:
        yield
    except BaseException as e:
        where = f' in process {jax.process_index()}'
        status = cli.report_error(e, where)
        lost = _lost_process_message(e) if status is None else ''
        if lost:
            print(f'error{where}: {lost}', file=sys.stderr, flush=True)
        elif status is None:
            traceback.print_exc()
        has_peers = jax.process_count() > 1
        if has_peers and isinstance(e, UserError) and is_lead():
            # The others, about to report the same error, need the coordinator.
            time.sleep(_SAME_ERROR_SECONDS)
        elif lost or (has_peers and status is None and isinstance(e, jax.errors.JaxRuntimeError)):
            time.sleep(2 * HEARTBEAT_SECONDS)  # JAX is about to name the lost process and to end this one
        os._exit(1 if status is None else status)  # an orderly exit would wait for the others


def _connect(coordinator: str, processes: int, process: int) -> bool:
    """Connect to the other processes of the job; return False if there is no cluster, so that this process is alone."""
    jax.config.update('jax_enable_preemption_service', False)  # the training loop handles signals
    name = f'process {process} of {processes}' if coordinator else _name_in_cluster()
    message = (
        '%s has been waiting for %d seconds for the other processes of its job to connect. '
        'Start them, or pass --processes=1 to run this process alone.'
    )
    reminder = threading.Timer(_SILENCE_SECONDS, logging.warning, (message, name, _SILENCE_SECONDS))
    reminder.daemon = True
    reminder.start()
    try:
        with _default_interrupt():
            jax.distributed.initialize(
                coordinator or None,
                processes or None,
                process if coordinator else None,
                cluster_detection_method='deactivate' if coordinator else None,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=3 * HEARTBEAT_SECONDS,
            )
    except (ValueError, RuntimeError) as e:
        # There is no cluster, or JAX has computed something before, as in a notebook.
        if coordinator or not re.search('coordinator_address|must be called before', str(e)):
            raise
        return False
    finally:
        reminder.cancel()
    return True


def _name_in_cluster() -> str:
    """Name this process by the variables from which JAX learns of its cluster."""
    for size, rank in (('SLURM_NTASKS', 'SLURM_PROCID'), ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK')):
        if size in os.environ:
            return f'process {os.environ.get(rank)} of {os.environ[size]} ({size})'
    return 'this process'


@contextlib.contextmanager
def _default_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process at once, since Python handles it only after a call of a library returns."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)


def _lost_process_message(e: BaseException | None) -> str:
    """Return the message for an error caused by the death of another process, or '' for any other error."""
    if jax.process_count() == 1 or e is None:
        return ''
    is_from_jax = isinstance(
        e, jax.errors.JaxRuntimeError | TimeoutError | ValueError
    )  # XLA's may be ValueErrors
    if not (is_from_jax and _MISSING_PROCESS.search(str(e))):
        return _lost_process_message(e.__cause__ or e.__context__)
    index = _PROCESS_INDEX.search(str(e))
    name = f'process {index[1]}' if index else 'another process'
    return (
        f'{name} died or failed ({first_line(e)}). Run the same command to resume from the last checkpoint.'
    )


def is_lead() -> bool:
    """Return whether this is process 0, the only one that writes metrics and results."""
    return jax.process_index() == 0


@contextlib.contextmanager
def lead_first() -> Iterator[None]:
    """Let the lead process run the block first; the others wait, and then find the files that it created."""
    if not is_lead():
        _wait()
    try:
        yield
    except UserError:
        if is_lead():  # the others have the same config: let them reach the same error
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _wait(_SAME_ERROR_SECONDS * 1000)
        raise
    if is_lead():
        _wait()


def _wait(timeout_ms: int = _DAY_MS) -> None:
    """Wait until all processes have called this; if one of them dies, JAX ends this process."""
    import orbax.checkpoint as ocp

    ocp.multihost.get_barrier_sync_fn()(key=f'bert_jax/{next(_barriers)}', timeout_ms=timeout_ms)
