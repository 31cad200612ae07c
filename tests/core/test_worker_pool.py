"""Worker processes and signals."""

import os
import pathlib
import signal
import time

from bert_jax.core import worker_pool


class SlowToUnpickle:
    """Object that writes the process id to a file and then takes a second to unpickle, like one that imports JAX."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        pathlib.Path(state['path']).write_text(str(os.getpid()))
        time.sleep(1)


def test_worker_that_is_starting_ignores_sigterm(tmp_path):
    path = tmp_path / 'pid'
    with worker_pool.start_pool(1, SlowToUnpickle(str(path))) as pool:
        result = pool.submit(os.getpid)
        while not path.exists() or not path.read_text():
            time.sleep(0.01)
        os.kill(int(path.read_text()), signal.SIGTERM)
        assert result.result(60) == int(path.read_text())
