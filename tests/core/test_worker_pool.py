"""Processes that work for this one."""

import os
import pathlib
import signal
import time

from bert_jax.core import worker_pool


class Slow:
    """Takes long to unpickle, as what imports JAX, and says when it begins."""

    def __init__(self, said):
        self.said = said

    def __setstate__(self, state):
        pathlib.Path(state['said']).write_text(str(os.getpid()))
        time.sleep(1)


def begin(slow):
    pass


def test_a_signal_to_stop_does_not_end_one_that_has_just_begun(tmp_path):
    said = tmp_path / 'said'
    with worker_pool.pool(1, begin, Slow(str(said))) as pool:
        answer = pool.submit(os.getpid)
        while not said.exists() or not said.read_text():
            time.sleep(0.01)
        os.kill(int(said.read_text()), signal.SIGTERM)
        assert answer.result(60) == int(said.read_text())
