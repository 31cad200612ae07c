"""Run the cases of one part of the campaign within a time limit, and report those that fail.

A part is a module with two functions: `prepare(folder)` returns what its cases share, and `try_case(rng, folder, shared)`
tries one case in an empty folder, with all choices made by `rng`. It returns the kind of the case, and raises if the code
under test does something wrong. A case is repeated by its name, `PART-SEED-NUMBER`.
"""

import collections
import contextlib
import io
import logging
import pathlib
import random
import re
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Any

from bert_jax.core.errors import UserError


class Hang(BaseException):
    """A case took longer than its limit. No `except Exception` catches it."""


class Report:
    """Outcome of a part.

    Attributes:
      tries: number of cases by kind.
      failures: problem of each failed case, by its name.
      skipped: reasons why kinds of cases were left out.
    """

    def __init__(self) -> None:
        self.tries: collections.Counter[str] = collections.Counter()
        self.failures: dict[str, str] = {}
        self.skipped: set[str] = set()


def run_part(name: str, part: Any, seed: int, seconds: float, first: int = 0, count: int = 0) -> Report:
    """Try cases until the time is over, at least one.

    Args:
      name: name of the part.
      part: its module.
      seed: seed of the campaign.
      seconds: time to spend.
      first: number of the first case.
      count: number of cases to try, whatever time they take; 0 tries as many as the time allows.
    """
    report = Report()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix='campaign-') as folder, _quiet():
        root = pathlib.Path(folder)
        (root / 'shared').mkdir()
        shared = part.prepare(root / 'shared')
        number = first
        while number < first + count if count else (number == first or time.monotonic() < end):
            case = f'{name}-{seed}-{number}'
            workdir = root / f'{number}'
            workdir.mkdir()
            try:
                with _time_limit(part.LIMIT):
                    kind = part.try_case(random.Random(case), workdir, shared)
                report.tries[kind] += 1
            except Skipped as e:
                report.skipped.add(str(e))
            except (Exception, Hang, KeyboardInterrupt, SystemExit) as e:
                if isinstance(e, KeyboardInterrupt) and not getattr(part, 'INTERRUPTS', False):
                    raise
                report.tries['failed'] += 1
                report.failures[case] = _describe(e, root)
                print(f'  {case}: {report.failures[case]}', flush=True)
            _restore_permissions(workdir)
            shutil.rmtree(workdir)
            number += 1
    return report


class Skipped(Exception):
    """A case cannot be tried on this machine, for the reason in its text."""


def check_message(e: UserError, *parts: str) -> None:
    """Check that an error is one short line which names the `parts`, such as a file."""
    text = str(e)
    assert re.search(r'[.?`]$', text), f'not a sentence: {text!r}'
    assert '\n' not in text.strip(), f'more than one line: {text!r}'
    assert len(text) < 1500, f'{len(text)} characters: {text[:300]!r}'
    for part in parts:
        assert part in text, f'does not name {part!r}: {text!r}'


def _describe(e: BaseException, root: pathlib.Path) -> str:
    frames = traceback.extract_tb(e.__traceback__)
    ours = [f for f in frames if '/bert_jax/' in f.filename or '/tests/' in f.filename] or frames
    places = [f'{pathlib.Path(f.filename).name}:{f.lineno}' for f in ours[-3:]]
    return f'{" > ".join(places)}: {type(e).__name__}: {e}'.replace(str(root), '')[:700]


def _restore_permissions(folder: pathlib.Path) -> None:
    for path in folder.rglob('*'):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log, in which damaged files cause warnings, and the progress of trainings."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang(f'no end after {seconds} seconds')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
