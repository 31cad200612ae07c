"""Sources of documents: text files, files of records, and TFDS data sets."""

import codecs
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats, tfds_data
from bert_jax.data.files import find_files, split_suffix

# Longer lines and documents are cut, to bound the memory on any input.
MAX_DOCUMENT_CHARS = 1 << 16
_SUFFIXES = ('.txt', *formats.RECORD_SUFFIXES)
_NAMED_SOURCE = re.compile(r'([\w-]+)=(.+)', re.DOTALL)


class Document(NamedTuple):
    """A document, or a part of a long one.

    Attributes:
      paragraphs: non-empty lines of the text.
      progress: fraction of the source read so far, from 0 to 1.
      is_continuation: whether this is a later part of the document before it.
    """

    paragraphs: list[str]
    progress: float
    is_continuation: bool


def parse_source(source: str) -> tuple[str, str]:
    """Split 'de=novels_de.txt' into the corpus name 'de' and the source; the name is '' if there is none."""
    match = _NAMED_SOURCE.fullmatch(source)
    return (match[1], match[2]) if match else ('', source)


def read_documents(source: str, split: str, text_key: str) -> Iterator[Document]:
    """Stream the documents of a source, in order.

    A blank line ends a document of a text file. In files of records, such as `.jsonl`, and in TFDS data sets, every
    record is a document.
    Documents over `MAX_DOCUMENT_CHARS` characters come in parts, cut between paragraphs.

    Args:
      source: a TFDS name such as 'wikipedia/20230601.en', or a path or glob of files: text, or records in one of
        `formats.RECORD_SUFFIXES`, which may be compressed.
      split: split of a TFDS data set; ignored for files.
      text_key: field with the text of a record.

    Raises:
      UserError: if the source does not exist or cannot be read.
    """
    if not formats.is_path(source):
        records = tfds_data.load_examples(source, split)
        for i, example in enumerate(records, 1):
            lines = _text_field(example, text_key, f'Example {i - 1} of {source}').split('\n')
            yield from _make_documents(lines, i / len(records), False)
        return
    if files.is_folder(source):
        raise UserError(f'{source!r} is a folder. Name the files in it, such as {source.rstrip("/")}/*.txt.')
    paths = find_text_files(source)
    if not paths:
        problem = files.not_found_message(source, _SUFFIXES)
        raise UserError(f'{problem} Set a path or glob of {", ".join(_SUFFIXES)} files.')
    for path in paths:
        _check_text_file(path)
    total_bytes = sum(os.path.getsize(p) for p in paths) or 1
    bytes_before = 0
    for path in paths:
        for lines, offset, is_continuation in _read_file(path, text_key):
            yield from _make_documents(lines, (bytes_before + offset) / total_bytes, is_continuation)
        bytes_before += os.path.getsize(path)


def read_start(source: str, split: str, text_key: str) -> str:
    """Read the first document of a source, or the first part of a long one; see `read_documents`."""
    first = next(read_documents(source, split, text_key), None)
    return '\n'.join(first.paragraphs) if first else ''


def find_text_files(source: str) -> list[str]:
    """Return the files that match a source; if some end in one of `_SUFFIXES`, leave out the others."""
    found = find_files(source)
    return [p for p in found if split_suffix(p)[0] in _SUFFIXES] or found


def _check_text_file(path: str) -> None:
    """Raise UserError if a file has no documents, or can be read only once."""
    suffix = split_suffix(path)[0]
    if suffix in formats.LABELED_SUFFIXES and suffix not in _SUFFIXES:
        raise UserError(f'{path!r} holds words with labels, not documents. Use {", ".join(_SUFFIXES)} files.')
    if not os.path.isfile(path):
        raise UserError(f'{path!r} is a pipe, which can be read only once. Write the text to a file.')


def file_sizes(source: str) -> list[int]:
    """Return the size in bytes of each file of a source; empty for TFDS data sets and missing files."""
    return [os.path.getsize(p) for p in find_text_files(source)] if formats.is_path(source) else []


def _text_field(record: Mapping[str, Any], key: str, location: str) -> str:
    if not isinstance(record.get(key), str):
        known = [k for k, v in record.items() if isinstance(v, str)]
        found = f', but one of the type {type(record[key]).__name__}' if key in record else ''
        raise UserError(
            f'{location} has no text field {key!r}{found}. Set data.text_key: {did_you_mean(key, known)}'
        )
    return record[key].encode('utf-8', 'replace').decode('utf-8')  # JSON may contain an unpaired surrogate


def _make_documents(lines: Sequence[str], progress: float, is_continuation: bool) -> Iterator[Document]:
    """Make a document of lines, a long one in several parts of at most `MAX_DOCUMENT_CHARS`."""
    paragraphs: list[str] = []
    size = 0
    for line in lines:
        line = line.strip()
        for start in range(0, len(line), MAX_DOCUMENT_CHARS):
            part = line[start : start + MAX_DOCUMENT_CHARS]
            if paragraphs and size + len(part) > MAX_DOCUMENT_CHARS:
                yield Document(paragraphs, progress, is_continuation)
                paragraphs, size, is_continuation = [], 0, True
            paragraphs.append(part)
            size += len(part)
    if paragraphs:
        yield Document(paragraphs, progress, is_continuation)


def _read_file(path: str, text_key: str) -> Iterator[tuple[list[str], int, bool]]:
    """Yield the lines of each document in a file, a long one in parts.

    Yields:
      The lines, the number of bytes read so far, and whether the lines continue the document before them.
    """
    with files.open_binary(path) as (stream, raw):
        if split_suffix(path)[0] in formats.RECORD_SUFFIXES:
            parts = _read_records(stream, path, text_key)
        else:
            parts = _read_text(stream, path)
        has_warned = False
        for lines, is_continuation in parts:
            if not has_warned and any('\ufffd' in line for line in lines):
                logging.warning(
                    '%r contains invalid UTF-8, which is replaced by \ufffd; convert the file to UTF-8', path
                )
                has_warned = True
            yield lines, raw.tell(), is_continuation


def _read_records(stream: Any, path: str, text_key: str) -> Iterator[tuple[list[str], bool]]:
    for place, record in formats.read(stream, path, 'replace'):
        if isinstance(record, formats.Invalid):
            raise UserError(f'{path}, {place} {record.problem}')
        yield _text_field(record, text_key, f'{path}, {place}').split('\n'), False


def _read_text(stream: Any, path: str) -> Iterator[tuple[list[str], bool]]:
    lines: list[str] = []
    size, is_continuation = 0, False
    for line in _lines(stream, 4 * MAX_DOCUMENT_CHARS):
        if '\0' in line:
            raise UserError(
                f'{path!r} contains a NUL byte, so it is binary or UTF-16, not UTF-8 text. Convert it to UTF-8 '
                'or remove it from data.sources.'
            )
        is_blank = not line.strip()
        if lines and (is_blank or size + len(line) > MAX_DOCUMENT_CHARS):
            yield lines, is_continuation
            lines, size, is_continuation = [], 0, not is_blank
        if not is_blank:
            lines.append(line)
            size += len(line)
    if lines:
        yield lines, is_continuation


def _lines(file: Any, max_bytes: int) -> Iterator[str]:
    """Yield the lines of a binary file as text; lines of more than `max_bytes` bytes come in parts."""
    decoder = codecs.getincrementaldecoder('utf-8-sig')('replace')
    while line := file.readline(max_bytes):
        yield decoder.decode(line, final=line.endswith(b'\n'))
