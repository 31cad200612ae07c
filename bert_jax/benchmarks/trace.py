"""Summarize a profiler trace of JAX: the operations that take the most time on the device."""

import collections
import pathlib
import re
from collections.abc import Iterator
from typing import Any

_TOP = 20


def summarize(folder: pathlib.Path, steps: int) -> list[dict[str, Any]]:
    """Sum the times of the operations in a trace.

    Operations whose names differ only in a number at the end count as one.

    Args:
      folder: folder that was passed to `jax.profiler.trace`.
      steps: number of steps in the trace.

    Returns:
      The operations with the largest sums, each with `name`, `ms` per step, `share` of the sum over all operations, and
      `calls` per step.
    """
    from jax.profiler import ProfileData

    seconds: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.defaultdict(int)
    for file in sorted(folder.rglob('*.xplane.pb')):
        for name, nanoseconds in _operations(ProfileData.from_file(str(file))):
            name = re.sub(r'([._]\d+)+$', '', name)
            seconds[name] += nanoseconds / 1e9
            calls[name] += 1
    total = sum(seconds.values())
    return [
        {
            'name': name,
            'ms': round(1e3 * value / steps, 3),
            'share': round(value / total, 4),
            'calls': calls[name] / steps,
        }
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])[:_TOP]
    ]


def _operations(profile: Any) -> Iterator[tuple[str, float]]:
    """Yield the name and the nanoseconds of each operation of the devices; of the CPU if there is no other device."""
    planes = [plane for plane in profile.planes if re.match('/device:(GPU|TPU)', plane.name)]
    for plane in planes:
        streams = [line for line in plane.lines if line.name.startswith('Stream')]
        for line in streams or [line for line in plane.lines if line.name == 'XLA Ops']:
            yield from ((event.name, event.duration_ns) for event in line.events)
    if planes:
        return
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if any(name == 'hlo_op' for name, _ in event.stats):
                    yield event.name, event.duration_ns


def format_summary(operations: list[dict[str, Any]]) -> str:
    """Format the result of `summarize` as lines of text."""
    return '\n'.join(
        f'{x["share"]:6.1%}  {x["ms"]:8.3f} ms  {x["calls"]:6.0f} calls  {x["name"]}' for x in operations
    )
