"""Run functions of the benchmarks in processes of their own, so that they share neither threads nor memory.

The arguments and results of a function are JSON values. Each result is printed as one line, so that none is lost if the
process fails later.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import first_line

_OUT_OF_MEMORY = re.compile(
    'RESOURCE_EXHAUSTED|out of memory|OutOfMemoryError|MemoryError|bad_alloc|can.t allocate memory',
    re.IGNORECASE,
)


class Failure(Exception):
    """A process that failed.

    Attributes:
      reason: one line.
      is_out_of_memory: whether it ran out of memory.
      results: results that it yielded before.
      output: the end of its standard error.
    """

    def __init__(self, reason: str, is_out_of_memory: bool, results: list[dict[str, Any]], output: str):
        super().__init__(reason)
        self.reason, self.is_out_of_memory = reason, is_out_of_memory
        self.results, self.output = results, output


def call(
    module: str,
    function: str,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
) -> list[dict[str, Any]]:
    """Call a function in a new process.

    Args:
      module: full name of its module.
      function: name of a function that returns a dict, or yields several.
      arguments: its arguments by name.
      environment: environment variables of the process, in addition to those of this one.
      limit: number of seconds after which the process is killed; None is no limit.

    Returns:
      All results.

    Raises:
      Failure: if the process fails, or takes longer than the limit.
    """
    command = [sys.executable, '-m', __name__, module, function, json.dumps(arguments)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors='replace',
            env=make_environment(environment or {}),
            timeout=limit,
        )
    except subprocess.TimeoutExpired as e:
        output, errors = ((x or b'').decode(errors='replace') for x in (e.stdout, e.stderr))
        raise Failure(f'took longer than {limit:.0f} seconds', False, _parse(output), errors[-4000:]) from e
    results = _parse(done.stdout)
    if done.returncode:
        reasons = [f'exit status {done.returncode}', *done.stderr.strip().splitlines()]
        if done.returncode < 0:
            reasons.append(f'killed by {signal.Signals(-done.returncode).name}')
        if results and 'error' in results[-1]:
            reasons.append(results.pop()['error'])
        is_out_of_memory = bool(_OUT_OF_MEMORY.search(reasons[-1])) or done.returncode == -signal.SIGKILL
        raise Failure(reasons[-1], is_out_of_memory, results, done.stderr[-4000:])
    return results


def make_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a process that finds the same packages as this one."""
    return {**os.environ, **variables, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}


def _parse(output: str) -> list[dict[str, Any]]:
    """Parse the lines that are JSON objects."""
    results = []
    for line in output.splitlines():
        if line.startswith('{'):
            try:
                results.append(json.loads(line))
            except json.JSONDecodeError:  # a library prints such a line, or the process was killed
                continue
    return results


def main() -> None:
    """Call a function in this process, and print its results, see `call`."""
    module, function, arguments = sys.argv[1:]
    try:
        results = getattr(importlib.import_module(module), function)(**json.loads(arguments))
        for result in [results] if isinstance(results, dict) else results:
            print(json.dumps(result), flush=True)
    except Exception as e:
        print(json.dumps({'error': f'{type(e).__name__}: {first_line(e)}'}), flush=True)
        raise


if __name__ == '__main__':
    main()
