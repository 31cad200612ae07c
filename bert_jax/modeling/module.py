"""The border of Flax NNX: modules on this side, flat dicts `{'path/of/parameter': array}` outside."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

Params = dict[str, jax.Array]
# For annotations on the other side.
Module = nnx.Module
Graph = nnx.GraphDef
Rngs = nnx.Rngs


def _name(path: tuple[Any, ...]) -> str:
    return '/'.join(map(str, path))


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """A module as its structure and its parameters by path."""
    graph, state = nnx.split(module)
    return graph, {_name(path): variable.get_raw_value() for path, variable in nnx.to_flat_state(state)}


def merge(graph: nnx.GraphDef, params: Mapping[str, Any]) -> Any:
    """The module again, with these parameters."""
    flat = [(tuple(int(p) if p.isdigit() else p for p in name.split('/')), v) for name, v in params.items()]
    return nnx.merge(graph, nnx.from_flat_state(sorted(flat, key=lambda item: [str(p) for p in item[0]])))


def abstract(
    make: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[nnx.GraphDef, dict[str, jax.ShapeDtypeStruct], dict[str, tuple[str | None, ...]]]:
    """Structure, shapes and logical axes of `make(rngs)` without making an array."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    flat = nnx.to_flat_state(state)
    shapes = {_name(path): variable.get_raw_value() for path, variable in flat}
    axes = {_name(path): variable.get_metadata('axes') for path, variable in flat}
    return graph, shapes, axes


def init(make: Callable[[nnx.Rngs], nnx.Module], key: jax.Array) -> Params:
    """Parameters of `make(rngs)` drawn from `key`; to be jitted with the shardings wanted."""
    return split(make(nnx.Rngs(key)))[1]
