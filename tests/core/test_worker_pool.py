"""Worker processes and signals."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from bert_jax.core import worker_pool


def test_resource_tracker_ignores_the_end_of_a_session():
    code = """
import multiprocessing.resource_tracker, os, signal
from bert_jax.core import worker_pool
worker_pool.start_resource_tracker()
tracker = multiprocessing.resource_tracker._resource_tracker
os.kill(tracker._pid, signal.SIGHUP)
print(tracker._check_alive(), signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ('True True\n', '')


class SlowToUnpickle:
    """Object that writes the process id to a file and then takes a second to unpickle, like one that imports JAX."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        pathlib.Path(state['path']).write_text(str(os.getpid()))
        time.sleep(1)


def test_worker_that_is_starting_ignores_signals_to_stop(tmp_path):
    path = tmp_path / 'pid'
    with worker_pool.start_pool(1, SlowToUnpickle(str(path))) as pool:
        result = pool.submit(os.getpid)
        while not path.exists() or not path.read_text():
            time.sleep(0.01)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(int(path.read_text()), number)
        assert result.result(60) == int(path.read_text())
