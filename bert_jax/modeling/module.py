"""Conversion between Flax NNX modules and flat parameter dicts `{'path/of/parameter': array}`.

Code outside `modeling` handles only the dicts.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from bert_jax.core import stacking

Params = dict[str, jax.Array]
# For type annotations outside `modeling`.
Module = nnx.Module
Graph = nnx.GraphDef


class Rngs:
    """Random keys for parameters, the same as those of `flax.nnx.Rngs`.

    That class counts the keys in an array. While a model is traced, Flax spends more time on the array than on the model.

    Attributes:
      key: random key from which all others are derived.
      count: number of keys that were taken.
    """

    def __init__(self, key: jax.Array | int, count: int | jax.Array = 0):
        """Begin with a key, or with a seed."""
        self.key = jax.random.key(key) if isinstance(key, int) else key
        self.count = count

    def params(self) -> jax.Array:
        """Take a key."""
        key = jax.random.fold_in(self.key, self.count)
        self.count += 1
        return key


class Bias(nnx.Param):
    """A bias that is added to activations or logits. It is not decayed, see `undecayed`."""


class NormScale(nnx.Param):
    """Factors of normalized activations. They are not decayed, see `undecayed`."""


def _join(path: tuple[Any, ...]) -> str:
    return '/'.join(map(str, path))


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """Split a module into its structure and its parameters by path."""
    graph, state = nnx.split(module)
    return graph, {_join(path): variable.get_raw_value() for path, variable in nnx.to_flat_state(state)}


def merge(graph: nnx.GraphDef, params: Mapping[str, Any]) -> Any:
    """Rebuild a module from the structure that `split` returned and parameters in any order."""
    flat = sorted(params.items(), key=lambda item: item[0].split('/'))
    # The keys of a list are integers. Those of the blocks of a stack are strings if parameters are stacked.
    named = tuple({prefix for name in params if (prefix := stacking.container(name)) is not None})

    def parse(name: str) -> tuple[str | int, ...]:
        parts = name.split('/')
        index = next((prefix.count('/') for prefix in named if name.startswith(prefix)), -1)
        return tuple(int(p) if p.isdigit() and i != index else p for i, p in enumerate(parts))

    return nnx.merge(graph, nnx.from_flat_state([(parse(name), value) for name, value in flat]))


def abstract(
    make: Callable[[Rngs], nnx.Module],
) -> tuple[nnx.GraphDef, dict[str, jax.ShapeDtypeStruct], dict[str, tuple[str | None, ...]]]:
    """Return structure, shapes and logical axes of the module `make(rngs)`, without allocating arrays."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(Rngs(0))))
    flat = nnx.to_flat_state(state)
    shapes = {_join(path): variable.get_raw_value() for path, variable in flat}
    axes = {_join(path): variable.get_metadata('axes') for path, variable in flat}
    return graph, shapes, axes


def undecayed(graph: nnx.GraphDef, params: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths of biases and norm scales, to which the original BERT applies no weight decay.

    Embeddings are not among them, and neither is the table of `RelativeBias`, an embedding of distances.

    Args:
      graph: structure of a module.
      params: its parameters, or their shapes.
    """
    flat = nnx.to_flat_state(nnx.state(merge(graph, params)))
    return frozenset(_join(path) for path, variable in flat if isinstance(variable, Bias | NormScale))


def init(make: Callable[[Rngs], nnx.Module], key: jax.Array) -> Params:
    """Initialize the parameters of the module `make(rngs)`; call it under `jax.jit` with `out_shardings`."""
    return split(make(Rngs(key)))[1]
