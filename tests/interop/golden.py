"""Models whose weights anyone can draw again from the names of the tensors."""

import json
import pathlib
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name('golden.npz')


def draw(name, shape):
    """The weights of a tensor, wide enough that no output is near a constant."""
    center = 1.0 if 'norm' in name.lower() and name.endswith('weight') else 0.0
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (center + 0.2 * rng.standard_normal(shape)).astype(np.float32)


def read():
    """By architecture: its config, its tensors, what went in and what came out."""
    with np.load(FILE) as arrays:
        about = json.loads(str(arrays['about']))
        inputs = {k.removeprefix('inputs:'): arrays[k] for k in arrays if k.startswith('inputs:')}
        cases = {}
        for name, (config, shapes) in about.items():
            start = f'{name}:'
            outputs = {k.removeprefix(start): arrays[k] for k in arrays if k.startswith(start)}
            tensors = {tensor: draw(tensor, shape) for tensor, shape in shapes.items()}
            cases[name] = config, tensors, outputs
    return inputs, cases
