"""Checksums of the arrays in a checkpoint, since a flipped bit in a file of Orbax can become another number unnoticed."""

import zlib
from typing import Any

import jax
import numpy as np


def compute(tree: Any) -> str:
    """Return the CRC-32 of all arrays of a tree, 8 hexadecimal digits; empty if they belong to several processes.

    The arrays are read one after another on the host.
    """
    if jax.process_count() > 1:
        return ''
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), crc)
    return f'{crc:08x}'


def check(tree: Any, expected: str, name: str) -> None:
    """Check the arrays of a tree that was restored with the dtypes with which it was saved.

    Args:
      tree: the arrays.
      expected: result of `compute` when they were saved; empty checks nothing.
      name: what the arrays are, for the message.

    Raises:
      ValueError: if the arrays differ.
    """
    if expected and compute(tree) not in ('', expected):
        raise ValueError(f'the {name} have changed since they were saved')
