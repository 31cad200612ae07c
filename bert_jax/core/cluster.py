"""Several processes that train one model: how they find each other, and what one of them does for all.

By JAX's own runtime for many hosts. The working directory must be one that all processes see: a network
file system, or a bucket that is mounted.
"""

import contextlib
import itertools
import logging
import os
import re
import time
import traceback
from collections.abc import Iterator

import jax

from bert_jax.core import cli
from bert_jax.core.errors import UserError

HEARTBEAT = 20  # seconds without a sign of life, after which a process counts as dead
_DAY_MS = 24 * 3600 * 1000
_barriers = itertools.count()


@contextlib.contextmanager
def job(coordinator: str = '', processes: int = 0, process: int = -1) -> Iterator[None]:
    """Makes this process one of a job; to be entered before JAX computes anything.

    A process that ends with an error, or is killed, ends the others: JAX says which it was, after `HEARTBEAT`
    seconds, and stops them.

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
        status = cli.explain(e, f' in process {jax.process_index()}')
        if status is None:
            traceback.print_exc()
        full = 'RESOURCE_EXHAUSTED' in str(e)
        if isinstance(e, jax.errors.JaxRuntimeError) and jax.process_count() > 1 and not full:
            time.sleep(2 * HEARTBEAT)  # has another died? JAX is about to say which, and to end this one
        os._exit(1 if status is None else status)  # an orderly end would wait for the others


def is_lead() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def lead_first() -> Iterator[None]:
    """The lead goes through this block first; the others wait for it, and then find what it has made."""
    if not is_lead():
        _wait()
    yield
    if is_lead():
        _wait()


def _wait() -> None:
    """Until all processes have come here; a dead one ends the wait, and the process."""
    import orbax.checkpoint as ocp

    ocp.multihost.get_barrier_sync_fn()(key=f'bert_jax/{next(_barriers)}', timeout_ms=_DAY_MS)
