"""Record how the wall-clock time of a run, including restarts, divides into training steps and overhead."""

import collections
import contextlib
import itertools
import json
import math
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from bert_jax.core import paths

FILE = 'progress.json'
# Import time of this module, close to the start of the process. After a run, the time at which that run ended.
_start_time = time.time()


class Ledger:
    """Writer of `progress.json` in a working directory, with one entry for each start or resumption of the run.

    The keys of an entry are:
      began, time: start of the process and last update of the entry, in seconds since 1970.
      from, step: step at the start and at the last update.
      overhead: seconds that were not spent in training steps, by category.
      host: host name.
      ended: how the process ended before the run was complete, such as 'stopped' or 'failed'; else empty.
      left: seconds left, estimated at the last update; missing before the first estimate.

    Args:
      workdir: working directory of the run.
      step: step at which this process starts or resumes.
      total: last step of the run.
    """

    def __init__(self, workdir: pathlib.Path, step: int, total: int):
        self.folder, self._total = workdir, total
        self._earlier_starts = read(workdir).get('starts', [])
        self._entry: dict[str, Any] = {
            'began': _start_time,
            'from': step,
            'step': step,
            'overhead': collections.defaultdict(float, start=time.time() - _start_time),
            'host': socket.gethostname(),
        }

    @contextlib.contextmanager
    def overhead(self, category: str) -> Iterator[None]:
        """Count the time spent in the `with` block as overhead of this category."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._entry['overhead'][category] += time.perf_counter() - start

    def write(self, step: int, ended: str = '', left: float = math.nan) -> None:
        """Update the entry of this process in the file: the run has reached `step`, with `left` seconds to go."""
        self._entry |= {'time': time.time(), 'step': step, 'ended': ended}
        if math.isfinite(left):
            self._entry['left'] = left
        content = {'total': self._total, 'starts': [*self._earlier_starts, self._entry]}
        paths.write_atomic(self.folder / FILE, json.dumps(content, indent=2) + '\n')

    def record_end(self, reason: str) -> None:
        """Record why the process ended before the run was complete."""
        with contextlib.suppress(OSError):  # the disk may be full
            self.write(self._entry['step'], reason)

    def close(self) -> None:
        """Restart the clock, so that a later run in this process counts its time from now."""
        global _start_time
        _start_time = time.time()


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the file that `Ledger` writes; empty if it is missing or invalid."""
    try:
        content = paths.read_json(workdir / FILE)
        starts = content['starts']
        numbers = [content['total']]
        for start in starts:
            numbers += [start[key] for key in ('began', 'time', 'from', 'step')]
            numbers += [start.get('left', 0.0), *start['overhead'].values()]
        is_valid = bool(starts) and all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return {}
    return content if is_valid else {}


def time_shares(starts: list[dict[str, Any]]) -> dict[str, float]:
    """Return the shares of the categories of `time_by_category`, which add up to 1; empty without a start."""
    seconds = time_by_category(starts)
    total = sum(seconds.values())
    return {category: value / total for category, value in seconds.items()} if total else {}


def time_by_category(starts: list[dict[str, Any]]) -> dict[str, float]:
    """Divide the time between the first start and the last update of a run into categories.

    Args:
      starts: entries of `Ledger`, in order.

    Returns:
      Seconds of 'steps' (goodput), 'downtime' (from the last update of a process to the start of the next), 'repeated
      steps' (lost because the process ended before the next checkpoint), and the categories of overhead.
    """
    seconds: dict[str, float] = collections.defaultdict(float)
    for start, following in itertools.zip_longest(starts, starts[1:]):
        done = kept = start['step'] - start['from']
        all_steps = max(0.0, start['time'] - start['began'] - sum(start['overhead'].values()))
        if following is not None:
            seconds['downtime'] += max(0.0, following['began'] - start['time'])
            kept = max(0, min(done, following['from'] - start['from']))
        kept_share = kept / done if done else 0.0  # without a recorded step, nothing was kept
        seconds['steps'] += all_steps * kept_share
        seconds['repeated steps'] += all_steps * (1 - kept_share)
        for category, value in start['overhead'].items():
            seconds[category] += max(0.0, value)
    return dict(seconds)
