"""Formats of data files, one module each, and which format a file has by its suffix.

To add a format, write a function `(file, path) -> LocatedFields` in a module of this package and list it in `_READERS`.
"""

import glob
import io
import os
from collections.abc import Callable, Mapping
from typing import BinaryIO, TextIO

from bert_jax.core.errors import UserError
from bert_jax.data import files, tfds_data
from bert_jax.data.formats import conll, json_records, parquet, tables, text_lines
from bert_jax.data.formats.common import Invalid, LocatedFields

__all__ = ['LABELED_SUFFIXES', 'RECORD_SUFFIXES', 'SUFFIXES', 'Invalid', 'LocatedFields', 'is_path', 'read']

_READERS: Mapping[str, Callable[[TextIO, str], LocatedFields]] = {
    '.jsonl': json_records.read_lines,
    '.json': json_records.read_document,
    '.csv': tables.read,
    '.tsv': tables.read,
    '.conll': conll.read,
    '.iob': conll.read,
    '.iob2': conll.read,
    '.bio': conll.read,
    '.bioes': conll.read,
    '.conllu': conll.read,
    '.conllup': conll.read,
    '.cupt': conll.read,
    '.txt': text_lines.read,
}
# All formats, those of labeled data, and those among them whose records may also be documents.
SUFFIXES = (*_READERS, '.parquet')
LABELED_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != '.txt')
RECORD_SUFFIXES = ('.jsonl', '.json', '.csv', '.tsv', '.parquet')


def is_path(source: str) -> bool:
    """Return whether a source names files, not a TFDS data set.

    It does if it begins like a path (/, ./, ../ or ~), contains {split} or a wildcard, ends in the suffix of a data
    file, or exists. A folder that exists may also be a prepared TFDS data set.
    """
    suffix, compression = files.split_suffix(source)
    is_prepared = any(os.path.isdir(os.path.join(folder, source)) for folder in tfds_data.folders())
    return (
        source.startswith(('/', './', '../', '~'))
        or '{split}' in source
        or glob.has_magic(source)
        or bool(compression)
        or suffix in SUFFIXES
        or (os.path.exists(source) and not is_prepared)
    )


def read(stream: BinaryIO, path: str, errors: str = 'surrogateescape') -> LocatedFields:
    """Read the records of a file.

    Args:
      stream: the decompressed file.
      path: its path, whose suffix is one of `SUFFIXES`.
      errors: how to decode invalid UTF-8. By default, its records are `Invalid`; 'replace' reads them.

    Raises:
      UserError: if the file as a whole cannot be read.
    """
    suffix, compression = files.split_suffix(path)
    if suffix != '.parquet':
        return _READERS[suffix](io.TextIOWrapper(stream, 'utf-8-sig', errors, newline=''), path)
    if compression:
        raise UserError(f'{path!r} cannot be read, because Parquet needs random access. Decompress the file.')
    return parquet.read(stream, path)
