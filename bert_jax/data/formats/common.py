"""What all readers of data files share."""

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bert_jax.core.errors import UserError


class Invalid(NamedTuple):
    """A placeholder for a record that cannot be read.

    Attributes:
      problem: error message without the location of the record, which precedes it.
    """

    problem: str


# The location of each record in its file, such as 'line 3', and its fields by name.
LocatedFields = Iterator[tuple[str, Mapping[str, Any] | Invalid]]

NOT_UTF8 = Invalid('is not UTF-8 text. Convert the file to UTF-8.')


def is_utf8(text: str) -> bool:
    """Return whether a text decoded with `surrogateescape` came from valid UTF-8.

    NUL bytes count as invalid, because UTF-16 text contains them.
    """
    return not _INVALID.search(text)


_INVALID = re.compile('[\0\udc80-\udcff]')


def not_utf8_error(path: str) -> UserError:
    """Return the error for a file whose encoding is not UTF-8."""
    return UserError(f'{path!r} is not UTF-8 text. Convert the file to UTF-8.')


def count_columns(n: int) -> str:
    """Return a number of columns in words, such as '2 columns'."""
    return f'{n} columns' if n != 1 else 'one column'


@functools.cache
def log_once(message: str) -> None:
    """Log a message only once, although files are read twice: for their classes and for their rows."""
    logging.info(message)
