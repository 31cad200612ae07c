"""Configs: a `ConfigDict` from a file, overridden from the command line, made into dataclasses.

A config file holds `get_config(arg)`, which returns a `ConfigDict` of sections. Each section
becomes one frozen dataclass, where its defaults live; a key that no dataclass knows is an error.
"""

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import json
import math
import pathlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from bert_jax.core.errors import UserError, first_line


def nearest(name: str, known: Iterable[str]) -> str:
    """Names the known word that is most like `name`, as the tail of a sentence."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'did you mean {close[0]!r}?' if close else f'known: {", ".join(known)}.'


def within(section: Any, prefix: str, low: float, high: float, *names: str) -> None:
    """Raises UserError if one of these fields of a section is not from `low` to `high`."""
    for name in names:
        value = getattr(section, name)
        if not low <= value <= high:
            limits = f'at least {low:,}' if high == math.inf else f'from {low:,} to {high:,}'
            raise UserError(f'{prefix}.{name}={value} must be {limits}.')


def load(spec: str) -> ConfigDict:
    """Runs `get_config(arg)` of the config file `spec`, written FILE.py or FILE.py:arg.

    Raises:
      UserError: if the file is missing, fails, or has no `get_config`.
    """
    path, _, arg = spec.partition(':')
    module = execute(path)
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path!r} has no get_config(): a config file returns its ConfigDict there.')
    parameters = inspect.signature(module.get_config).parameters.values()
    if arg and not parameters:
        raise UserError(f'{path!r} takes no argument, so {arg!r} after the colon means nothing.')
    if not arg and any(p.default is p.empty for p in parameters):
        raise UserError(f'{path!r} needs an argument: write --config={path}:ARGUMENT.')
    try:
        return module.get_config(arg) if arg else module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        what = f'{type(e).__name__}: {first_line(e)}'
        if arg and isinstance(e, KeyError | ValueError):
            known = (inspect.getdoc(module.get_config) or 'see the file.').splitlines()[0]
            raise UserError(f'{path!r} does not accept the argument {arg!r} ({what}): {known}') from e
        raise UserError(f'get_config of {path!r} does not run ({what}): mend the config.') from e


def execute(path: str) -> Any:
    """The module of a config file.

    Raises:
      UserError: if the file is missing or fails.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f'There is no config file {path!r}: give --config=configs/.../NAME.py.')
    module_spec = importlib.util.spec_from_file_location(file.stem, file)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f'{path!r} is not a Python file: a config is a .py file with get_config().')
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        raise UserError(f'{path!r} does not run ({type(e).__name__}: {e}): mend the config.') from e
    return module


def override(config: ConfigDict, assignments: Sequence[str]) -> None:
    """Applies `a.b=value` assignments in place; the config must already hold every default.

    Raises:
      UserError: for a key that the config does not have, naming the nearest.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition('=')
        if not equals:
            raise UserError(f'--config.{key} needs a value: write --config.{key}=VALUE.')
        *parents, leaf = key.split('.')
        node: Any = config
        for depth, part in enumerate([*parents, leaf]):
            where = '.'.join([*parents, leaf][: depth + 1])
            if not isinstance(node, ConfigDict):
                above = '.'.join(parents[:depth])
                raise UserError(f'Unknown config key {where!r}: {above!r} is no section.')
            if part not in node:
                raise UserError(f'Unknown config key {where!r}: {nearest(part, node.keys())}')
            if depth < len(parents):
                node = node[part]
        if isinstance(node[leaf], ConfigDict):
            raise UserError(f'{key!r} is a section: set one of its keys, {", ".join(node[leaf])}.')
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError):
            value = {'true': True, 'false': False}.get(text, text)
        del node[leaf]  # or ConfigDict would convert to the type of the old value
        node[leaf] = value


def section(cls: type, values: Mapping[str, Any], path: str) -> Any:
    """Builds the dataclass `cls` from one section of a config.

    Args:
      cls: a frozen dataclass; its field defaults are the section's defaults.
      values: the section's keys; missing ones take their default.
      path: the section's name in the config, for messages.

    Raises:
      UserError: for a key that `cls` does not have, or a value of the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f'Unknown config key {f"{path}.{key}"!r}: {nearest(key, fields)}')
        kwargs[key] = _convert(value, hints[key], f'{path}.{key}')
    missing = [
        name
        for name, f in fields.items()
        if name not in kwargs
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f'The config needs {f"{path}.{missing[0]}"!r}, which has no default.')
    return cls(**kwargs)


def as_dict(value: Any) -> Any:
    """A section as plain JSON-ready values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, ConfigDict | Mapping):
        return {str(k): as_dict(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [as_dict(v) for v in value]
    return value


def to_json(config: Any) -> str:
    """The config as stable, indented JSON text."""
    return json.dumps(as_dict(config), indent=2, sort_keys=True) + '\n'


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Checks `value` against a type hint; widens int to float and list to tuple."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if option is float and type(value) is int and int not in options:
            return float(value)
        if option is int and type(value) is float and value.is_integer() and float not in options:
            return int(value)
        if origin is tuple and isinstance(value, tuple | list | str):
            inner = typing.get_args(option)[0]
            if isinstance(value, str):  # a,b on the command line
                value = [part for part in value.split(',') if part]
            if typing.get_origin(inner) is tuple and value and not isinstance(value[0], tuple | list):
                value = [value]  # one of several
            return tuple(_convert(v, inner, path) for v in value)
        if origin is typing.Literal and value in typing.get_args(option):
            return value
        if isinstance(option, type) and type(value) is option:
            return value
        if origin in (dict, Mapping) and isinstance(value, ConfigDict | Mapping):
            return as_dict(value)
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        raise UserError(f'{path}={value!r} is not a choice: {nearest(str(value), map(str, choices))}')
    name = getattr(hint, '__name__', str(hint))
    raise UserError(f'{path}={value!r} is of type {type(value).__name__}, but {name} is needed.')
