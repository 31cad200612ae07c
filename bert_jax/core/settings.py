"""Describe the keys of a config: value, origin, type and meaning, for `--show` and for the reference."""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError


class Key(NamedTuple):
    """A config key.

    Attributes:
      name: full name, such as 'train.steps'.
      type: its type as in Python, or its choices, such as "'max' | 'min'".
      default: Python expression of its default; empty if the key is required.
      meaning: text from the `Attributes` of the dataclass; empty if the field is not documented.
    """

    name: str
    type: str
    default: str
    meaning: str


class Setting(NamedTuple):
    """A config key and its value.

    Attributes:
      key: the key.
      value: Python expression of the value.
      origin: where the value comes from: 'default', 'config', 'override', 'checkpoint', or 'derived' if another key
        determines it, as `model.size` determines `model.layers`.
    """

    key: Key
    value: str
    origin: str


class Section(NamedTuple):
    """A section of a config.

    Attributes:
      name: name of the section, such as 'train'.
      summary: what the section is about, in one sentence.
      settings: its keys in the order of the dataclass.
    """

    name: str
    summary: str
    settings: list[Setting]


def read_keys(cls: type, prefix: str) -> list[Key]:
    """Return the keys of a section in the order of its dataclass.

    Args:
      cls: dataclass of the section.
      prefix: name of the section in a config, such as 'train'; empty for keys without a section.
    """
    known, hints = read_meanings(cls), typing.get_type_hints(cls)
    keys = []
    if prefix == 'model':
        name = cls.__module__.rpartition('.')[2]
        keys.append(
            Key('model.name', 'str', repr(name), 'Model: `NAME` selects `bert_jax/modeling/NAME.py`.')
        )
    for field in dataclasses.fields(cls):
        meaning = known.get(field.name, '')
        if prefix == 'task' and field.name == 'name':
            meaning = 'Objective: `NAME` selects `bert_jax/tasks/NAME.py`.'
        type_ = re.sub(r'(\w+\.)+', '', inspect.formatannotation(hints[field.name]))
        type_ = re.sub(r'Literal\[(.*?)\]', lambda choices: choices[1].replace(', ', ' | '), type_)
        keys.append(Key(f'{prefix}.{field.name}'.lstrip('.'), type_, _default(field), meaning))
    return keys


def read_meanings(cls: type) -> dict[str, str]:
    """Return what the `Attributes` of a dataclass and of its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        lines = inspect.cleandoc(base.__dict__.get('__doc__') or '').splitlines()
        if 'Attributes:' not in lines:
            continue
        names: list[str] = []
        for line in lines[lines.index('Attributes:') + 1 :]:
            if line and not line.startswith(' '):
                break
            entry = re.match(r'  (\w+(?:, \w+)*)(?: \([^)]*\))?: (.*)', line)
            if entry:
                names = entry[1].split(', ')
                found |= dict.fromkeys(names, entry[2])
            else:
                found |= {name: f'{found[name]} {line.strip()}'.strip() for name in names}
    return found


def describe_section(
    cls: type, prefix: str, values: Mapping[str, Any], origins: Mapping[str, str], overrides: Sequence[str]
) -> Section:
    """Describe a section of a config.

    Args:
      cls: dataclass of the section.
      prefix: name of the section in a config; empty for keys without a section.
      values: value of each key.
      origins: origin of each key whose value is neither a default nor an override.
      overrides: `a.b=value` changes to the config.
    """
    settings = []
    for key in read_keys(cls, prefix):
        name = key.name.rpartition('.')[2]
        value = repr(values[name])
        origin = origins.get(name) or ('default' if value == key.default else 'derived')
        is_overridden = any(s.startswith((f'{key.name}=', f'{key.name}.')) for s in overrides)
        settings.append(Setting(key, value, 'override' if is_overridden else origin))
    summary = inspect.cleandoc(cls.__doc__ or '').split('\n\n')[0]
    return Section(prefix or cls.__name__.lower(), ' '.join(summary.split()), settings)


def format_sections(sections: Sequence[Section], chosen: str, width: int) -> Iterator[str]:
    """Yield the lines that `--show` prints.

    Args:
      sections: all sections of the config.
      chosen: name of the only section to format, with the whole meaning of its keys; empty formats all sections, with one
        line per meaning.
      width: number of columns of the terminal.

    Raises:
      UserError: if there is no such section.
    """
    names = [section.name for section in sections]
    if chosen and chosen not in names:
        raise UserError(f'Unknown config section {chosen!r}: {did_you_mean(chosen, names)}')
    for section in sections:
        if chosen in ('', section.name):
            yield from textwrap.wrap(f'{section.name}: {section.summary}', width)
            for setting in section.settings:
                yield from _format_setting(setting, not chosen, width)
            yield ''


def _format_setting(setting: Setting, is_short: bool, width: int) -> Iterator[str]:
    def wrap(text: str, indent: str) -> list[str]:
        return textwrap.wrap(
            text, width, initial_indent=indent, subsequent_indent='      ', break_on_hyphens=False
        )

    key, value, meaning = setting.key, setting.value, setting.key.meaning
    if is_short:
        value = textwrap.shorten(value, width - len(f'  {key.name} = '), placeholder=' ...')
        for end in (r'(?<=\.) (?=[A-Z])', '; '):  # a whole sentence or clause, if it fits
            if len(meaning) > width - 6:
                meaning = re.split(end, meaning)[0]
        meaning = textwrap.shorten(meaning, width - 6, placeholder=' ...')
    yield from wrap(f'{key.name} = {value}  ({setting.origin}; {key.type})', '  ')
    yield from wrap(meaning, '      ')


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return repr(field.default_factory()) if field.default_factory is not dataclasses.MISSING else ''
