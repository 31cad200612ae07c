"""Parameters of repeated layers in stacked arrays, and their conversion to one array for each layer.

The path of a stacked parameter contains a range of layers: `blocks/1:10:3/mlp/up/kernel` holds that of the layers 1, 4
and 7 along its first axis, as `blocks[1:10:3]` does in Python. `blocks/4/mlp/up/kernel` is the parameter of one layer.
All functions also take a `ShapeDtypeStruct` in place of an array, and convert its sharding, if it has one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

_RANGE = re.compile(r'(?:^|(?<=/))(\d+):(\d+):(\d+)(?=/|$)')


def range_name(layers: range) -> str:
    """Return the part of a path that stands for a range of layers."""
    return f'{layers.start}:{layers.stop}:{layers.step}'


def is_stacked(path: str) -> bool:
    """Return whether a path is that of a stacked parameter."""
    return _RANGE.search(path) is not None


def layer_paths(path: str) -> list[str]:
    """Return the path for each layer of a stacked parameter, in the order of its first axis; else the path alone."""
    found = _RANGE.search(path)
    if found is None:
        return [path]
    layers = range(*map(int, found.groups()))
    return [f'{path[: found.start()]}{layer}{path[found.end() :]}' for layer in layers]


def container(path: str) -> str | None:
    """Return the beginning of a path before its range of layers, such as `bert/layers/blocks/`, or None without one."""
    found = _RANGE.search(path)
    return None if found is None else path[: found.start()]


def unstack(params: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each stacked parameter by those of its layers."""
    return {
        layer: _take(value, i) if is_stacked(path) else value
        for path, value in params.items()
        for i, layer in enumerate(layer_paths(path))
    }


def stack(params: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Combine parameters without stacks to those of `paths`; the inverse of `unstack`.

    Raises:
      KeyError: if a path, or one of its layers, is not among the parameters.
    """
    return {
        path: _join([params[layer] for layer in layer_paths(path)]) if is_stacked(path) else params[path]
        for path in paths
    }


def convert(tree: Any, paths: Iterable[str]) -> Any:
    """Stack the same layers as in `paths`.

    Args:
      tree: a dict of parameters by path, or a tree with such dicts, such as the state of an optimizer, each of which may
        lack some parameters.
      paths: paths of all parameters of the model, in which layers may be stacked or not.
    """

    def convert_dict(params: Any) -> Any:
        if not isinstance(params, dict):
            return params
        layers = unstack(params)
        return stack(layers, [path for path in paths if layer_paths(path)[0] in layers])

    paths = [*paths]
    return jax.tree.map(convert_dict, tree, is_leaf=_is_dict)


def convert_arrays(tree: Any, abstract: Any) -> Any:
    """Stack the same layers as in another tree, and delete the arrays that are replaced.

    Args:
      tree: parameters as in `convert`.
      abstract: the same tree with the wanted paths and with `ShapeDtypeStruct` leaves that have shardings.

    Raises:
      KeyError: if a parameter is missing.
    """

    def convert_dict(params: Any, wanted: Any) -> Any:
        if not isinstance(params, dict) or params.keys() == wanted.keys():
            return params
        old = {path: value for path, value in params.items() if path not in wanted}
        shardings = {path: value.sharding for path, value in wanted.items() if path not in params}
        new = jax.jit(lambda old: stack(unstack(old), shardings), out_shardings=shardings)(old)
        for value in old.values():
            value.delete()
        return {path: new[path] if path in new else params[path] for path in wanted}

    return jax.tree.map(convert_dict, tree, abstract, is_leaf=_is_dict)


def _is_dict(x: Any) -> bool:
    return isinstance(x, dict)


def _take(value: Any, index: int) -> Any:
    if not isinstance(value, jax.ShapeDtypeStruct):
        return value[index]
    sharding = value.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, P(*sharding.spec[1:]))
    return value.update(shape=value.shape[1:], sharding=sharding)


def _join(values: Sequence[Any]) -> Any:
    value = values[0]
    if not isinstance(value, jax.ShapeDtypeStruct):
        return jnp.stack(values)
    sharding = value.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, P(None, *sharding.spec))
    return value.update(shape=(len(values), *value.shape), sharding=sharding)
