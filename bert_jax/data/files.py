"""Data files: find them by path or glob, and open them decompressed."""

import bz2
import contextlib
import glob
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError, first_line

# Kinds of compressed files, by suffix.
COMPRESSIONS = {'.gz': 'gzip', '.bz2': 'bzip2', '.xz': 'xz', '.zst': 'zstd'}


def split_suffix(path: str) -> tuple[str, str]:
    """Return the suffixes of the format and of the compression in lower case, such as '.jsonl' and '.gz'."""
    root, suffix = os.path.splitext(path.lower())
    return (os.path.splitext(root)[1], suffix) if suffix in COMPRESSIONS else (suffix, '')


def find_files(pattern: str) -> list[str]:
    """Return the files that match a path or glob, sorted.

    A path that exists is never taken for a glob, and neither is the part of the pattern that names an existing folder:
    'data[1]/*.txt' finds the files in the folder 'data[1]'.
    """
    pattern = os.path.expanduser(pattern)
    if _is_file(pattern):
        return [pattern]
    folder = pattern
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    for escaped in (glob.escape(folder) + pattern[len(folder) :], pattern):
        if found := sorted(path for path in glob.glob(escaped, recursive=True) if _is_file(path)):
            return found
    return []


def not_found_message(pattern: str, suffixes: Sequence[str]) -> str:
    """Return the beginning of the error that no file matches a pattern, which lists the files in its folder.

    Args:
      pattern: path or glob.
      suffixes: suffixes of the files to list.
    """
    folder, name = os.path.split(os.path.expanduser(pattern))
    found = os.listdir(folder or '.') if is_folder(folder or '.') else []
    known = [file for file in found if split_suffix(file)[0] in suffixes]
    return f'No file matches {pattern!r}' + (f': {did_you_mean(name, known)}' if known else '.')


def is_folder(path: str) -> bool:
    """Return whether a path is an existing folder."""
    return os.path.isdir(os.path.expanduser(path))


def _is_file(path: str) -> bool:
    """Return whether a path is a file that can be read, such as a pipe."""
    return os.path.exists(path) and not os.path.isdir(path)


def join_at_commas(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Join the parts of paths that contain commas, where a list of sources was split.

    A part that matches no file is joined with those after it, if together they are a path or glob that does. It may
    begin with the name of a corpus, such as 'de=novels, 1.txt'.
    """
    joined: list[str] = []
    start = 0
    while start < len(parts):
        candidates = ((stop, ','.join(parts[start:stop])) for stop in range(start + 1, len(parts) + 1))
        matches = (c for c in candidates if find_files(re.sub(r'^[\w-]+=', '', c[1])) or find_files(c[1]))
        start, source = next(matches, (start + 1, parts[start]))
        joined.append(source)
    return tuple(joined)


@contextlib.contextmanager
def open_binary(path: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file for reading, and decompress it if its suffix is one of `COMPRESSIONS`.

    Yields:
      The decompressed stream, and the file itself, whose position tells how much of it was read.

    Raises:
      UserError: if the file is damaged; also while it is read.
    """
    compression = split_suffix(path)[1]
    with open(path, 'rb') as file:
        try:
            yield _decompress(file, compression), file
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as e:
            if not compression or getattr(e, 'errno', None) is not None:  # an error of the disk
                raise
            raise UserError(
                f'{path!r} is damaged or not a {COMPRESSIONS[compression]} file ({first_line(e)}). Download it again.'
            ) from e


def _decompress(file: BinaryIO, compression: str) -> Any:
    if compression == '.gz':
        return gzip.GzipFile(fileobj=file)
    if compression == '.bz2':
        return bz2.BZ2File(file)
    if compression == '.xz':
        return lzma.LZMAFile(file)
    if compression == '.zst':
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(file, 'zstd')
        return io.BufferedReader(stream)
    return file
