"""Several processes that train one model: how they find each other, and what one of them does for all.

By JAX's own runtime for many hosts. The working directory must be one that all processes see: a network
file system, or a bucket that is mounted.
"""

import contextlib
import itertools
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator

import jax

from bert_jax.core import cli
from bert_jax.core.errors import UserError, first_line

HEARTBEAT = 20  # seconds without a sign of life, after which a process counts as dead
_DAY_MS = 24 * 3600 * 1000
_SAME = 5  # seconds for the others to come to an error that is theirs too
# What is said where another process is missing, and how it is named there.
_MISSING = re.compile(r'heartbeat|unhealthy|barrier|gloo|nccl|DEADLINE_EXCEEDED|UNAVAILABLE', re.IGNORECASE)
_NAMED = re.compile(r'(?:heartbeats\)|timed out task names):\s*(?:\S*task:)?(\d+)')
_barriers = itertools.count()


@contextlib.contextmanager
def job(coordinator: str = '', processes: int = 0, process: int = -1) -> Iterator[None]:
    """Makes this process one of a job; to be entered before JAX computes anything.

    A process that ends with an error, or is killed, ends the others: they say so in a sentence, and JAX says which it
    was, after `HEARTBEAT` seconds, and stops them.

    Without arguments JAX asks its surroundings: `srun` of SLURM, the workers of a TPU VM, Open MPI. If there
    are none, this process is a job of its own.

    Args:
      coordinator: HOST:PORT of process 0, the same for all.
      processes: how many there are.
      process: which of them this is, from 0.

    Raises:
      UserError: if some arguments are missing. If the others do not come, JAX ends the process after five minutes.
    """
    given = bool(coordinator), processes > 0, process >= 0
    if any(given) and not (all(given) and process < processes and coordinator.rpartition(':')[2].isdigit()):
        raise UserError(
            '--coordinator=HOST:PORT, --processes=N and --process=0..N-1 belong together: give all three, or none.'
        )
    if coordinator:
        logging.info('process %d of %d: looking for the others at %s', process, processes, coordinator)
    jax.config.update('jax_enable_preemption_service', False)  # the training loop hears signals itself
    try:
        jax.distributed.initialize(
            coordinator or None,
            processes if coordinator else None,
            process if coordinator else None,
            cluster_detection_method='deactivate' if coordinator else None,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=3 * HEARTBEAT,
        )
    except (ValueError, RuntimeError) as e:
        # There is no cluster, or JAX computes already, as in a notebook.
        if coordinator or not re.search('coordinator_address|must be called before', str(e)):
            raise
        yield
        return
    if not is_lead():
        logging.getLogger().setLevel(logging.WARNING)
    try:
        yield
    except BaseException as e:
        where = f' in process {jax.process_index()}'
        status = cli.explain(e, where)
        lost = _lost(e) if status is None else ''
        if lost:
            print(f'error{where}: {lost}', file=sys.stderr, flush=True)
        elif status is None:
            traceback.print_exc()
        if jax.process_count() > 1 and isinstance(e, UserError) and is_lead():
            time.sleep(_SAME)  # the others are about to say the same, for which they need the coordinator
        elif lost or (
            status is None and isinstance(e, jax.errors.JaxRuntimeError) and jax.process_count() > 1
        ):
            time.sleep(2 * HEARTBEAT)  # JAX is about to say which has died, and to end this one
        os._exit(1 if status is None else status)  # an orderly end would wait for the others


def _lost(e: BaseException | None) -> str:
    """A sentence on an error that comes of the death of another process; empty of all other errors."""
    if jax.process_count() == 1 or e is None:
        return ''
    if not (isinstance(e, jax.errors.JaxRuntimeError | TimeoutError) and _MISSING.search(str(e))):
        return _lost(e.__cause__ or e.__context__)
    named = _NAMED.search(str(e))
    which = f'process {named[1]}' if named else 'another process'
    return (
        f'{which} died, or ended with an error of its own ({first_line(e)}): the same command goes on from the last '
        'whole checkpoint.'
    )


def is_lead() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def lead_first() -> Iterator[None]:
    """The lead goes through this block first; the others wait for it, and then find what it has made."""
    if not is_lead():
        _wait()
    try:
        yield
    except UserError:
        if is_lead():  # the config is theirs too: they shall come to the same error
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _wait(_SAME * 1000)
        raise
    if is_lead():
        _wait()


def _wait(timeout_ms: int = _DAY_MS) -> None:
    """Until all processes have come here; a dead one ends the wait, and the process."""
    import orbax.checkpoint as ocp

    ocp.multihost.get_barrier_sync_fn()(key=f'bert_jax/{next(_barriers)}', timeout_ms=timeout_ms)
