"""Golden outputs of small Hugging Face models, whose weights are seeded by the names of their tensors."""

import json
import pathlib
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name('golden.npz')


def random_weights(name, shape):
    """Reproducible weights of a tensor, spread widely so that no output is near a constant."""
    module = name.removeprefix('roberta_prelayernorm')  # which is no norm itself
    center = 1.0 if 'norm' in module.lower() and name.endswith('weight') else 0.0
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (center + 0.2 * rng.standard_normal(shape)).astype(np.float32)


def read():
    """Read the inputs, and by architecture its config, tensors and expected outputs."""
    with np.load(FILE) as arrays:
        models = json.loads(str(arrays['models']))
        inputs = {k.removeprefix('inputs:'): arrays[k] for k in arrays if k.startswith('inputs:')}
        cases = {}
        for name, (config, shapes) in models.items():
            prefix = f'{name}:'
            outputs = {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}
            tensors = {tensor: random_weights(tensor, shape) for tensor, shape in shapes.items()}
            cases[name] = config, tensors, outputs
    return inputs, cases
