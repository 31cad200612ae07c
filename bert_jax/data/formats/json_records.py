"""JSON files of records: one object per line, a list of objects, or questions in the format of SQuAD."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from bert_jax.core.errors import UserError, first_line
from bert_jax.data.formats import squad
from bert_jax.data.formats.common import NOT_UTF8, Invalid, LocatedFields, is_utf8, not_utf8_error


def read_lines(file: TextIO, path: str) -> LocatedFields:
    """Read a `.jsonl` file: one object per line."""
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f'line {number}', _parse_line(line) if is_utf8(line) else NOT_UTF8


def _parse_line(line: str) -> Mapping[str, Any] | Invalid:
    try:
        value = _parse(line)
    except (ValueError, RecursionError) as e:  # ValueError also for numbers with too many digits
        return Invalid(f'is not JSON ({first_line(e)}). Write one JSON object per line.')
    return value if isinstance(value, dict) else _NOT_AN_OBJECT


_NOT_AN_OBJECT = Invalid('is not a JSON object. Write {"text": ..., "label": ...} for each record.')


def read_document(file: TextIO, path: str) -> LocatedFields:
    """Read a `.json` file: SQuAD, a list of objects, such a list in the field 'data', or one object per line."""
    text = file.read()
    if not is_utf8(text):
        raise not_utf8_error(path)
    try:
        value = _parse(text)
    except json.JSONDecodeError as e:
        if e.msg != 'Extra data':
            raise _syntax_error(path, e) from e
        yield from read_lines(io.StringIO(text), path)
        return
    except (ValueError, RecursionError) as e:
        raise _syntax_error(path, e) from e
    entries = value.get('data', [value]) if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise UserError(f'{path!r} holds no list of records. Write one JSON object per line.')
    if squad.is_squad(entries):
        yield from squad.read(entries, path)
    else:
        yield from _read_list(entries)


def _syntax_error(path: str, e: Exception) -> UserError:
    return UserError(
        f'{path!r} is not JSON ({first_line(e)}). Correct it, or write one JSON object per line.'
    )


def _read_list(entries: Sequence[Any]) -> LocatedFields:
    for number, entry in enumerate(entries, 1):
        yield f'record {number}', entry if isinstance(entry, dict) else _NOT_AN_OBJECT


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_to_dict)


def _to_dict(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'an object has the field {max(names, key=names.count)!r} twice')
    return fields
