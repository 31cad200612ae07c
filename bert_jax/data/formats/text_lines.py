"""Plain text: one text per line, without labels."""

from typing import TextIO

from bert_jax.data.formats.common import NOT_UTF8, LocatedFields, is_utf8


def read(file: TextIO, path: str) -> LocatedFields:
    """Read a `.txt` file: each line that is not empty is a record with the field `text`."""
    for number, line in enumerate(file, 1):
        if text := line.strip():
            yield f'line {number}', {'text': text} if is_utf8(text) else NOT_UTF8
