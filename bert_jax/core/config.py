"""Load configs from files, override them from the command line and convert them to dataclasses.

A config file defines `get_config(arg)`, which returns a `ConfigDict` of sections. Each section is converted
to a frozen dataclass, which defines its defaults. Keys that are not fields of the dataclass are errors.
"""

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import json
import math
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from bert_jax.core import paths
from bert_jax.core.errors import UserError, first_line


def did_you_mean(
    name: str, known: Iterable[str], similarity: float = 0.5, kinds: Mapping[str, str] | None = None
) -> str:
    """Return the end of an error message: the known names, the closest one first if it is similar.

    Of more than 20 names, the 20 closest are listed.

    Args:
      name: the unknown name.
      known: the known names.
      similarity: smallest ratio of `difflib` at which two names are similar, from 0 to 1.
      kinds: what the known names are, such as types of fields, to write after each name.
    """
    known = {*known}
    notes = {known_name: f' ({kind})' for known_name, kind in (kinds or {}).items()}
    close = difflib.get_close_matches(name, known, n=1, cutoff=similarity)
    others = known - {*close}
    nearest = sorted(difflib.get_close_matches(name, others, n=20, cutoff=0))
    listed = list_names([f'{other}{notes.get(other, "")}' for other in nearest], len(others))
    if not close:
        return f'known: {listed}.'
    return f'did you mean {list_names(close)!r}{notes.get(close[0], "")}?' + (
        f' Others: {listed}.' if others else ''
    )


def list_names(names: Sequence[str], total: int = 0, limit: int = 20) -> str:
    """Return the first `limit` names as one line, long ones shortened, and the number of the others; 'none' without names.

    Args:
      names: the names, or the first of them.
      total: how many names there are, if `names` has only the first.
      limit: maximum number of names.
    """
    more = max(total, len(names)) - len(names[:limit])
    lines = [' '.join(name.splitlines()) for name in names[:limit]]
    shown = [line if len(line) <= 100 else f'{line[:97]}...' for line in lines]
    return (', '.join(shown) or 'none') + (f', and {more} more' if more else '')


def list_changes(changes: Sequence[str], limit: int = 3) -> str:
    """Return the first `limit` changes as one line, and the number of the others."""
    more = f'; and {len(changes) - limit} more' if len(changes) > limit else ''
    return '; '.join(changes[:limit]) + more


def check_range(section: Any, prefix: str, low: float, high: float, *names: str) -> None:
    """Raise UserError if a field of a section is not in [low, high].

    Args:
      section: dataclass of the section.
      prefix: name of the section, for the message.
      low: smallest valid value.
      high: largest valid value; `math.inf` is no limit.
      *names: fields to check.
    """
    for name in names:
        value = getattr(section, name)
        if not low <= value <= high:
            limits = f'at least {low:,}' if high == math.inf else f'from {low:,} to {high:,}'
            raise UserError(f'{prefix}.{name}={value} must be {limits}.')


def load(spec: str) -> ConfigDict:
    """Run `get_config(arg)` of a config file.

    Args:
      spec: FILE.py, FILE.py:arg, or the `config.json` of a run.

    Raises:
      UserError: if the file is missing, fails to run, or does not define `get_config`.
    """
    path, _, arg = spec.partition(':')
    if path.endswith('.json') and not arg:
        return _load_json(path)
    module = load_module(path)
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path!r} does not define get_config(). Define it, and return a ConfigDict from it.')
    parameters = inspect.signature(module.get_config).parameters.values()
    if arg and not parameters:
        raise UserError(f'{path!r} takes no argument. Remove {":" + arg!r}.')
    if not arg and any(p.default is p.empty for p in parameters):
        known = _describe_argument(module.get_config)
        raise UserError(f'{path!r} needs an argument, as in --config={path}:ARGUMENT: {known}')
    try:
        config = module.get_config(arg) if arg else module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        reason = f'{type(e).__name__}: {first_line(e)}'
        if arg and isinstance(e, KeyError):
            known = _describe_argument(module.get_config)
            raise UserError(f'{path!r} does not accept the argument {arg!r} ({reason}): {known}') from e
        if arg and isinstance(e, ValueError):
            raise UserError(f'{path!r} does not accept the argument {arg!r}: {e}') from e
        raise UserError(f'get_config() of {path!r} failed ({reason}). Fix the config file.') from e
    if not isinstance(config, ConfigDict | Mapping):
        raise UserError(f'get_config() of {path!r} returns {config!r}. Return a ConfigDict from it.')
    return config


def _load_json(path: str) -> ConfigDict:
    if pathlib.Path(path).name == 'run.json':
        config = pathlib.Path(path).with_name('config.json')
        raise UserError(f'{path!r} is the record of a run, not its config. Set --config={config}.')
    try:
        return ConfigDict(paths.read_json(pathlib.Path(path)))
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise UserError(
            f'{path!r} is not the config.json of a run ({first_line(e)}). Set --config to a file such as RUN/config.json.'
        ) from e


def _describe_argument(get_config: Callable[[str], ConfigDict]) -> str:
    """Return the arguments that a config takes, as its error for an empty one or its docstring describes them."""
    try:
        get_config('')
    except ValueError as e:
        return str(e)
    except Exception:
        pass
    return (inspect.getdoc(get_config) or 'see the file.').splitlines()[0]


def load_module(path: str) -> Any:
    """Import a config file as a module.

    Raises:
      UserError: if the file is missing or fails to run.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        config = file / 'config.json'
        found = f'Set --config={config}.' if config.is_file() else 'Set --config to a file.'
        raise UserError(f'{path!r} is a folder, not a config file. {found}')
    if not file.is_file():
        others = [other.name for other in file.parent.glob('*.py')]
        hint = '. Pass one such as --config=configs/quickstart.py.'
        hint = f': {did_you_mean(file.name, others)}' if others else hint
        raise UserError(f'The config file {path!r} does not exist{hint}')
    module_spec = importlib.util.spec_from_file_location(file.stem, file)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f'{path!r} is not a Python file. Pass a .py file that defines get_config().')
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        raise UserError(f'{path!r} failed ({type(e).__name__}: {e}). Fix the config file.') from e
    return module


def override(config: ConfigDict, assignments: Sequence[str]) -> None:
    """Apply `a.b=value` assignments in place; values are parsed by `parse_value`.

    The config must already contain all defaults.

    Raises:
      UserError: for a key that the config does not contain. The message names the closest key.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition('=')
        if not equals:
            raise UserError(f'--config.{key} has no value. Write --config.{key}=VALUE.')
        *parents, leaf = key.split('.')
        node: Any = config
        for depth, part in enumerate([*parents, leaf]):
            path = '.'.join([*parents, leaf][: depth + 1])
            if not isinstance(node, ConfigDict):
                parent = '.'.join(parents[:depth])
                raise UserError(f'Unknown config key {path!r}: {parent!r} is a value, not a section.')
            if part not in node:
                raise UserError(f'Unknown config key {path!r}: {did_you_mean(part, node.keys())}')
            if depth < len(parents):
                node = node[part]
        if isinstance(node[leaf], ConfigDict):
            raise UserError(f'{key!r} is a section. Set one of its keys: {", ".join(node[leaf])}.')
        del node[leaf]  # otherwise ConfigDict would convert the value to the type of the old one
        node[leaf] = parse_value(text)


def parse_value(text: str) -> Any:
    """Parse a value of the command line: a Python literal, `true` or `false`; anything else is text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return {'true': True, 'false': False}.get(text, text)


def build_section(cls: type, values: Mapping[str, Any], path: str) -> Any:
    """Build the dataclass `cls` from one section of a config.

    Args:
      cls: frozen dataclass, whose fields define the keys and defaults of the section.
      values: keys and values of the section; missing keys take their default.
      path: name of the section, for messages.

    Raises:
      UserError: for a key that `cls` does not have, or a value of the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f'Unknown config key {f"{path}.{key}"!r}: {did_you_mean(key, fields)}')
        kwargs[key] = _convert(value, hints[key], f'{path}.{key}')
    for name, f in fields.items():
        is_required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if is_required and name not in kwargs:
            raise UserError(f'The config does not set {f"{path}.{name}"!r}, which has no default. Set it.')
    return cls(**kwargs)


def as_dict(value: Any) -> Any:
    """Convert a section to JSON-ready values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, ConfigDict | Mapping):
        return {str(k): as_dict(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [as_dict(v) for v in value]
    return value


def to_json(config: Any) -> str:
    """Serialize a config as indented JSON with sorted keys."""
    return json.dumps(as_dict(config), indent=2, sort_keys=True) + '\n'


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Check `value` against a type hint, converting int to float, list to tuple and 'a,b' to a tuple."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if option is float and type(value) is int and int not in options and abs(value) < sys.float_info.max:
            return float(value)
        if option is int and type(value) is float and value.is_integer() and float not in options:
            return int(value)
        if origin is tuple and isinstance(value, tuple | list | str):
            inner = typing.get_args(option)[0]
            if isinstance(value, str):  # from the command line
                value = [part for part in value.split(',') if part]
            if typing.get_origin(inner) is tuple and value and not isinstance(value[0], tuple | list):
                value = [value]  # a single inner tuple, such as 90,128,8
            return tuple(_convert(v, inner, path) for v in value)
        if origin is typing.Literal and value in typing.get_args(option):
            return value
        if isinstance(option, type) and type(value) is option:
            return value
        if origin in (dict, Mapping) and isinstance(value, ConfigDict | Mapping):
            return as_dict(value)
    value = as_dict(value)  # a section would be printed on several lines
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        raise UserError(f'{path}={value!r} is not a choice: {did_you_mean(str(value), map(str, choices))}')
    name = getattr(hint, '__name__', str(hint))
    raise UserError(f'{path}={value!r} is of type {type(value).__name__}. Set a value of type {name}.')
