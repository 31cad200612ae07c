"""Peak speed, memory and bandwidth of TPUs and GPUs, from their makers' data sheets."""

import math
from typing import NamedTuple

GiB = 2**30


class Chip(NamedTuple):
    """Data sheet of one accelerator chip.

    Attributes:
      device_kinds: prefixes of the `device_kind` of its JAX devices.
      flops: peak FLOP/s of dense bf16 matrix products.
      memory: memory in bytes.
      memory_bandwidth: memory bandwidth in bytes/s.
      link_bandwidth: bytes/s that the chip can send to other chips over all its links.
      devices_per_chip: number of JAX devices per chip.
      torus_dimensions: dimensions of the grid in which the chips are connected; 1 if every chip is connected to all
        others.
    """

    device_kinds: tuple[str, ...]
    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    devices_per_chip: int = 1
    torus_dimensions: int = 1


# From the page of each generation at cloud.google.com/tpu/docs. The link bandwidth is half of the "bidirectional
# inter-chip interconnect bandwidth" there.
TPUS = {
    'v4': Chip(('TPU v4',), 275e12, 32 * GiB, 1.23e12, 300e9, torus_dimensions=3),
    'v5e': Chip(('TPU v5 lite', 'TPU v5e'), 197e12, 16 * GiB, 0.82e12, 200e9, torus_dimensions=2),
    'v5p': Chip(('TPU v5',), 459e12, 95 * GiB, 2.77e12, 600e9, torus_dimensions=3),
    'v6e': Chip(('TPU v6 lite', 'TPU v6e'), 918e12, 32 * GiB, 1.64e12, 400e9, torus_dimensions=2),
    'tpu7x': Chip(('TPU7x',), 2307e12, 192 * GiB, 7.37e12, 600e9, devices_per_chip=2, torus_dimensions=3),
}
# From NVIDIA's data sheets. The link bandwidth is that of NVLink within one node.
GPUS = {
    'a100': Chip(('NVIDIA A100',), 312e12, 80 * GiB, 2.04e12, 300e9),
    'h100': Chip(('NVIDIA H100',), 989e12, 80 * GiB, 3.35e12, 450e9),
    'h200': Chip(('NVIDIA H200',), 989e12, 141 * 10**9, 4.8e12, 450e9),
    'b200': Chip(('NVIDIA B200',), 2250e12, 180 * GiB, 8.0e12, 900e9),
}
CHIPS = TPUS | GPUS
# Older chips and slower variants. They are only used to compute the utilization (MFU), which needs
# no bandwidths. The longest matching prefix determines the chip, so the prefix of a variant must be
# longer than that of the standard chip.
_OTHER_CHIPS = (
    Chip(('TPU v2',), 46e12, 16 * GiB, math.nan, math.nan, 2),
    Chip(('TPU v3',), 123e12, 32 * GiB, math.nan, math.nan, 2),
    Chip(('Tesla V100', 'NVIDIA V100'), 125e12, 16 * GiB, math.nan, math.nan),
    Chip(('Tesla V100-PCIE', 'NVIDIA V100-PCIE'), 112e12, 16 * GiB, math.nan, math.nan),
    Chip(('Tesla T4', 'NVIDIA T4'), 65e12, 16 * GiB, math.nan, math.nan),
    Chip(('NVIDIA H100 PCIe',), 756e12, 80 * GiB, math.nan, math.nan),
    Chip(('NVIDIA H100 NVL', 'NVIDIA H200 NVL'), 835e12, 94 * GiB, math.nan, math.nan),
)


def chip_of_device(device_kind: str) -> Chip | None:
    """Return the chip of a JAX device with this `device_kind`, or None if the chip is unknown."""
    chips = {prefix: chip for chip in (*CHIPS.values(), *_OTHER_CHIPS) for prefix in chip.device_kinds}
    return chips.get(max(filter(device_kind.startswith, chips), key=len, default=''))
