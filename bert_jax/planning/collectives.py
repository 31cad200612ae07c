"""What chips send to one another, read from a compiled program."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple


class Collective(NamedTuple):
    """Messages of one kind in a step.

    Attributes:
      kind: such as 'all-reduce'.
      number: how many.
      data: bytes of what is reduced or gathered, whole.
      sent: bytes that each chip sends, at the least.
    """

    kind: str
    number: int
    data: float
    sent: float


_KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_SIZES = {
    'pred': 1,
    's8': 1,
    'u8': 1,
    's16': 2,
    'u16': 2,
    'bf16': 2,
    'f16': 2,
    's32': 4,
    'u32': 4,
    'f32': 4,
    'f64': 8,
}
_OPERATION = re.compile(rf'= (.*?) ({"|".join(_KINDS)})(-start)?\(')
_ARRAY = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\]')
_BOUND = re.compile(r' [su]32\[\]\S* constant\((\d+)\)')  # in the condition of a loop, which counts from 0
_CALLED = re.compile(r'(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)')


def collectives(program: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program, those in loops as often as they run.

    Args:
      program: its HLO text.
      devices: over which it runs.
    """
    found: dict[str, list[float]] = {}
    for kind, times, data, group in _operations(program, devices):
        total = found.setdefault(kind, [0, 0.0, 0.0])
        share = (group - 1) / group
        sent = {'all-reduce': 2 * share, 'collective-permute': 1.0}.get(kind, share) * data
        for i, value in enumerate((1, data, sent)):
            total[i] += times * value
    return [Collective(kind, int(n), data, sent) for kind, (n, data, sent) in sorted(found.items())]


def _operations(program: str, devices: int) -> Iterator[tuple[str, int, float, int]]:
    """Kind, how often, bytes and group size of each collective."""
    bodies: dict[str, list[str]] = {}
    seen: set[str] = set()  # one that overlaps with computation is written in each part of it
    name = entry = ''
    for line in program.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith('{'):
            name = line.replace('ENTRY ', '').split(' ')[0].lstrip('%')
            entry = name if line.startswith('ENTRY') else entry
            bodies[name] = []
        elif name:
            bodies[name].append(line)

    def walk(name: str, times: int) -> Iterator[tuple[str, int, float, int]]:
        for line in bodies.get(name, ()):
            if match := _OPERATION.search(line):
                channel = re.search(r'channel_id=\d+', line)
                if channel and channel[0] in seen:
                    continue
                seen.update([channel[0]] if channel else [])
                kind, (data, group) = match[2], (_bytes(match[1]), _group(line, devices))
                if match[3] and kind == 'all-gather':  # the result beside the operand
                    data *= group / (group + 1)
                if match[3] and kind == 'collective-permute':
                    data /= 2
                scattered = kind == 'reduce-scatter'
                if group > 1:
                    yield kind, times, data * group if scattered else data, group
                continue
            for called in _CALLED.findall(line):
                for other in re.findall(r'%([\w.\-]+)', called):
                    yield from walk(other, times * trips(line))

    def trips(line: str) -> int:
        """How often what a line calls is run."""
        loop = re.search(r'condition=%([\w.\-]+), body=%([\w.\-]+)', line)
        if not loop:
            return 1
        bound = max(map(int, _BOUND.findall('\n'.join(bodies[loop[1]]))), default=1)
        if 'windowed_dot_general' not in loop[2]:
            return bound
        # A product that goes on while its operand comes: both ways round the ring, mostly two chunks at a time.
        chunks = sum('collective-permute-start(' in part for part in bodies[loop[2]])
        return min(bound, 2 * bound // max(1, chunks))

    yield from walk(entry, 1)


def _bytes(shapes: str) -> float:
    found = _ARRAY.findall(shapes.replace('u32[]', ''))  # scalars beside what is sent say when it has come
    arrays = [(kind, size) for kind, size in found if kind in _SIZES]
    return sum(_SIZES[kind] * math.prod(map(int, filter(None, size.split(',')))) for kind, size in arrays)


def _group(line: str, devices: int) -> int:
    """Over how many devices a collective goes, in any of the ways in which XLA writes it."""
    if match := re.search(r'replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}', line):
        sizes = {k: int(n) for k, n in re.findall(r"'(\w+)'=(\d+)", match[1])}
        return math.prod(sizes[k] for k in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]<=', line):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
        return len(match[1].split(','))
    return devices
