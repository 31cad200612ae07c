"""Where the time of a run goes, over all its starts: steps, and everything that is not a step."""

import contextlib
import itertools
import json
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from bert_jax.core import paths

FILE = 'progress.json'
_began = time.time()  # of this process, nearly; or of what it did after its last run


class Ledger:
    """Keeps `progress.json` of a working directory.

    Attributes of a start in it: `began` and `time` (of the last entry), seconds since 1970; `from` and `step`, the first
    and the last step; `lost`, seconds that were no steps, by what took them; `host`, where; `ended`, how, if it has.

    Args:
      workdir: of the run.
      step: from which it starts.
      total: of the whole run.
    """

    def __init__(self, workdir: pathlib.Path, step: int, total: int):
        self.folder, self._total = workdir, total
        self._before = read(workdir).get('starts', [])
        self._began, self._from, self._step = _began, step, step
        self._lost = {'start': time.time() - _began}

    @contextlib.contextmanager
    def lost(self, kind: str) -> Iterator[None]:
        """What is done inside is no step."""
        since = time.perf_counter()
        yield
        self._lost[kind] = self._lost.get(kind, 0.0) + time.perf_counter() - since

    def write(self, step: int, ended: str = '') -> None:
        self._step = step
        if self._before and self._from >= self._total:  # it was done before
            return
        now = {
            'began': self._began,
            'time': time.time(),
            'from': self._from,
            'step': step,
            'lost': self._lost,
            'host': socket.gethostname(),
            'ended': ended,
        }
        found = {'total': self._total, 'starts': [*self._before, now]}
        paths.write(self.folder / FILE, json.dumps(found, indent=2) + '\n')

    def end(self, how: str) -> None:
        """Notes that this start did not come to the end of the run."""
        with contextlib.suppress(OSError):  # the disk may be full
            self.write(self._step, how)

    def close(self) -> None:
        global _began
        _began = time.time()


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """What `Ledger` has written; nothing if there is nothing that can be read."""
    try:
        found = json.loads((workdir / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get('starts') and 'total' in found else {}


def shares(starts: list[dict[str, Any]]) -> dict[str, float]:
    """The shares of the time from the first begin to the last entry: 'steps', and by what took the rest.

    'down' is between one start and the next, 'again' are steps that a start had to repeat.
    """
    seconds: dict[str, float] = {}

    def add(kind: str, value: float) -> None:
        seconds[kind] = seconds.get(kind, 0.0) + max(0.0, value)

    for start, after in itertools.zip_longest(starts, starts[1:]):
        steps = start['time'] - start['began'] - sum(start['lost'].values())
        done, kept = start['step'] - start['from'], start['step'] - start['from']
        if after is not None:
            add('down', after['began'] - start['time'])
            kept = max(0, min(done, after['from'] - start['from']))
        add('steps', steps * kept / max(1, done))
        add('again', steps * (done - kept) / max(1, done))
        for kind, value in start['lost'].items():
            add(kind, value)
    whole = sum(seconds.values())
    return {kind: value / whole for kind, value in seconds.items()} if whole else {}
