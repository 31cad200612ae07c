"""What makers say of the chips that models run on."""

import math
from typing import NamedTuple

GiB = 2**30


class Chip(NamedTuple):
    """What a maker says of a chip.

    Attributes:
      kinds: how the names begin that JAX gives its devices.
      flops: FLOP/s of dense bf16 products.
      memory: bytes.
      bandwidth: of memory, bytes/s.
      links: bytes/s that it can send to others over all its links.
      devices: that JAX sees of it.
      dimensions: of the grid that these chips make; 1 if links join all to all.
    """

    kinds: tuple[str, ...]
    flops: float
    memory: float
    bandwidth: float
    links: float
    devices: int = 1
    dimensions: int = 1


# cloud.google.com/tpu/docs, pages of each generation: half of "bidirectional inter-chip interconnect bandwidth".
TPUS = {
    'v4': Chip(('TPU v4',), 275e12, 32 * GiB, 1.23e12, 300e9, dimensions=3),
    'v5e': Chip(('TPU v5 lite', 'TPU v5e'), 197e12, 16 * GiB, 0.82e12, 200e9, dimensions=2),
    'v5p': Chip(('TPU v5',), 459e12, 95 * GiB, 2.77e12, 600e9, dimensions=3),
    'v6e': Chip(('TPU v6 lite', 'TPU v6e'), 918e12, 32 * GiB, 1.64e12, 400e9, dimensions=2),
    'tpu7x': Chip(('TPU7x',), 2307e12, 192 * GiB, 7.37e12, 600e9, devices=2, dimensions=3),
}
# Data sheets; NVLink of one node.
GPUS = {
    'a100': Chip(('NVIDIA A100',), 312e12, 80 * GiB, 2.04e12, 300e9),
    'h100': Chip(('NVIDIA H100',), 989e12, 80 * GiB, 3.35e12, 450e9),
    'h200': Chip(('NVIDIA H200',), 989e12, 141 * 10**9, 4.8e12, 450e9),
    'b200': Chip(('NVIDIA B200',), 2250e12, 180 * GiB, 8.0e12, 900e9),
}
CHIPS = TPUS | GPUS
# Of which no more than speed and memory is told.
OLDER = (
    Chip(('TPU v2',), 46e12, 16 * GiB, math.nan, math.nan, 2),
    Chip(('TPU v3',), 123e12, 32 * GiB, math.nan, math.nan, 2),
    Chip(('Tesla V100', 'NVIDIA V100'), 125e12, 16 * GiB, math.nan, math.nan),
    Chip(('Tesla T4', 'NVIDIA T4'), 65e12, 16 * GiB, math.nan, math.nan),
)


def of_device(kind: str) -> Chip | None:
    """The chip whose devices have this `device_kind`; None if it is not known."""
    found = [(len(k), chip) for chip in (*CHIPS.values(), *OLDER) for k in chip.kinds if kind.startswith(k)]
    return max(found, key=lambda pair: pair[0])[1] if found else None
