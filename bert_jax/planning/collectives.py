"""Count the collectives of a compiled program and the bytes that they send."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Collective(NamedTuple):
    """All collectives of one kind in a step.

    Attributes:
      kind: HLO operation, such as 'all-reduce'.
      num_operations: number of operations.
      data_bytes: total bytes of the full arrays that are reduced or gathered.
      sent_bytes: minimum number of bytes that each chip sends in total.
      exposed_bytes: those of the sent bytes during which the schedule of the chip has no computation; NaN if there is
        no schedule.
    """

    kind: str
    num_operations: int
    data_bytes: float
    sent_bytes: float
    exposed_bytes: float


_KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_OPERATION = re.compile(rf'= (.*?) ({"|".join(_KINDS)})(-start)?\(')
_COMPUTATION = re.compile(r' (?:fusion|convolution|dot|while|custom-call|call|conditional)\(')
# Groups: bits per element (none for pred, booleans of 8 bits) and shape, such as 16 and 8,128 for bf16[8,128].
_ARRAY = re.compile(r'\b(?:pred|[a-z]+(\d+))\[([\d,]*)\]')
# The constant in the condition of a loop is its trip count, as the loop variable starts at 0.
_TRIP_COUNT = re.compile(r' [su]32\[\]\S* constant\((\d+)\)')
_CALLED = re.compile(r'(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)')


def count_collectives(program: str, devices: int) -> list[Collective]:
    """Sum the collectives of a compiled program by kind, counting those in a loop once per iteration.

    A collective overlaps with computation if it is part of a fusion, or if the schedule has a computation between its
    start and its end. The others are exposed: the chip waits for them.

    Args:
      program: HLO text of the program.
      devices: number of devices that it runs on.
    """
    totals: dict[str, np.ndarray] = {}
    for kind, repeats, data, group, is_exposed in _operations(program, devices):
        sent = sent_bytes(kind, data, group)
        once = np.array([1, data, sent, sent * is_exposed])
        totals[kind] = totals.get(kind, 0) + repeats * once
    return [Collective(kind, int(n), *map(float, sizes)) for kind, (n, *sizes) in sorted(totals.items())]


def sent_bytes(kind: str, data_bytes: float, group: int) -> float:
    """Minimum number of bytes that each chip sends for a collective over `data_bytes` in a group of chips."""
    share = (group - 1) / group
    return {'all-reduce': 2 * share, 'collective-permute': 1.0}.get(kind, share) * data_bytes


def _operations(program: str, devices: int) -> Iterator[tuple[str, int, float, int, bool]]:
    """Yield kind, number of repetitions, bytes and group size of each collective, and whether it is exposed."""
    computations: dict[str, list[str]] = {}
    # A collective that overlaps with computation appears in several fusions, with one channel id.
    seen: set[str] = set()
    name = entry = ''
    for line in program.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith('{'):
            name = line.replace('ENTRY ', '').split(' ')[0].lstrip('%')
            entry = name if line.startswith('ENTRY') else entry
            computations[name] = []
        elif name:
            computations[name].append(line)

    def walk(name: str, repeats: int, in_fusion: bool) -> Iterator[tuple[str, int, float, int, bool]]:
        lines = computations.get(name, [])
        for i, line in enumerate(lines):
            if match := _OPERATION.search(line):
                channel = re.search(r'channel_id=\d+', line)
                if channel and channel[0] in seen:
                    continue
                seen.update([channel[0]] if channel else [])
                kind, data, group = match[2], _bytes(match[1]), _group_size(line, devices)
                if match[3] and kind == 'all-gather':  # the shape has the operand and the result
                    data *= group / (group + 1)
                if match[3] and kind == 'collective-permute':
                    data /= 2
                if kind == 'reduce-scatter':
                    data *= group
                if group > 1:
                    is_exposed = not in_fusion and not (match[3] and _overlaps(lines[i:]))
                    yield kind, repeats, data, group, is_exposed
                continue
            for called in _CALLED.findall(line):
                for other in re.findall(r'%([\w.\-]+)', called):
                    yield from walk(other, repeats * trip_count(line), in_fusion or ' fusion(' in line)

    def trip_count(line: str) -> int:
        """Number of times that an instruction runs the computations that it calls."""
        loop = re.search(r'condition=%([\w.\-]+), body=%([\w.\-]+)', line)
        if not loop:
            return 1
        count = max(map(int, _TRIP_COUNT.findall('\n'.join(computations[loop[1]]))), default=1)
        if 'windowed_dot_general' not in loop[2]:
            return count
        # This loop overlaps a matrix product with transfers of its operand around a ring. `count`
        # is the number of ring steps; each step transfers one chunk per direction. An iteration
        # usually runs two steps, and so transfers four chunks.
        chunks = sum('collective-permute-start(' in part for part in computations[loop[2]])
        return min(count, 2 * count // max(1, chunks))

    yield from walk(entry, 1, False)


def _overlaps(lines: Sequence[str]) -> bool:
    """Return whether a computation follows before the end of the collective that starts in the first line."""
    name = lines[0].split()[0]
    for line in lines[1:]:
        if f'-done({name})' in line:
            return False
        if _COMPUTATION.search(line):
            return True
    return True  # ends in the next iteration of a loop


def _bytes(shapes: str) -> float:
    """Sum the bytes of the arrays in an HLO shape, without the u32 scalars that signal the end of a transfer."""
    arrays = _ARRAY.findall(shapes.replace('u32[]', ''))
    return sum(
        int(bits or 8) / 8 * math.prod(map(int, filter(None, dims.split(',')))) for bits, dims in arrays
    )


def _group_size(line: str, devices: int) -> int:
    """Parse the number of devices in each group of a collective, in any of the notations of XLA."""
    if match := re.search(r'replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}', line):
        sizes = {k: int(n) for k, n in re.findall(r"'(\w+)'=(\d+)", match[1])}
        return math.prod(sizes[k] for k in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]<=', line):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
        return len(match[1].split(','))
    return devices
