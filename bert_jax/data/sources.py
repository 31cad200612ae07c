"""Sources of text and labeled examples: TFDS data sets, text files, globs and `pydocs`."""

import codecs
import contextlib
import glob
import gzip
import importlib
import io
import itertools
import json
import logging
import os
import pathlib
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError, first_line
from bert_jax.core.paths import cache_dir, lock_folder

# Longer lines and documents are cut, to bound the memory on any input.
MAX_DOCUMENT_CHARS = 1 << 16
_SUFFIXES = ('.txt', '.txt.gz', '.jsonl', '.jsonl.gz')
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


def is_files(source: str) -> bool:
    """Return whether a source names text files rather than a TFDS data set."""
    is_file = os.path.isfile(os.path.expanduser(source))
    return is_file or source.endswith(_SUFFIXES) or glob.has_magic(source)


def read_documents(source: str, split: str, text_key: str) -> Iterator[Document]:
    """Stream the documents of a source, in order.

    A blank line ends a document of a text file. In `.jsonl` files and TFDS data sets, every record is a document.
    Documents over `MAX_DOCUMENT_CHARS` characters come in parts, cut between paragraphs.

    Args:
      source: a TFDS name such as 'wikipedia/20230601.en', or a path or glob of `.txt`, `.txt.gz` or `.jsonl` files.
      split: split of a TFDS data set; ignored for files.
      text_key: field with the text, in TFDS and `.jsonl` records.

    Raises:
      UserError: if the source does not exist or cannot be read.
    """
    if os.path.isdir(os.path.expanduser(source)):
        raise UserError(f'{source!r} is a folder. Name the files in it, such as {source.rstrip("/")}/*.txt.')
    if not is_files(source):
        records = load_examples(source, split)
        for i, example in enumerate(records, 1):
            lines = _text_field(example, text_key, source).split('\n')
            yield from _make_documents(lines, i / len(records), False)
        return
    paths = _find_text_files(source)
    if not paths:
        raise UserError(f'No file matches {source!r}. Set a path or glob of .txt, .txt.gz or .jsonl files.')
    total_bytes = sum(os.path.getsize(p) for p in paths) or 1
    bytes_before = 0
    for path in paths:
        for lines, offset, is_continuation in _read_file(path, text_key):
            yield from _make_documents(lines, (bytes_before + offset) / total_bytes, is_continuation)
        bytes_before += os.path.getsize(path)


def find_files(pattern: str) -> list[str]:
    """Return the files that match a path or glob, sorted."""
    pattern = os.path.expanduser(pattern)
    if os.path.isfile(pattern):
        return [pattern]
    return sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def _find_text_files(source: str) -> list[str]:
    """Return the files that match a source; if some end in one of `_SUFFIXES`, leave out the others."""
    found = find_files(source)
    return [p for p in found if p.endswith(_SUFFIXES)] or found


def file_sizes(source: str) -> list[int]:
    """Return the size in bytes of each file of a source; empty for TFDS data sets and missing files."""
    return [os.path.getsize(p) for p in _find_text_files(source)] if is_files(source) else []


def splits_overlap(a: str, b: str) -> bool:
    """Return whether two splits of a TFDS data set certainly share examples, such as 'train' and 'train[:100]+test'.

    Different slices of one split count as disjoint.
    """
    parts = [[part.strip().partition('[') for part in split.split('+')] for split in (a, b)]
    return any(
        name == other and (not slice_ or not other_slice or slice_ == other_slice)
        for (name, _, slice_), (other, _, other_slice) in itertools.product(*parts)
    )


def load_examples(name: str, split: str) -> Sequence[dict[str, Any]]:
    """Load a split of a TFDS data set as a random-access sequence of examples, with text decoded to `str`.

    A data set that is prepared in `TFDS_DATA_DIR` needs no builder code. Others are downloaded by their builder, and
    `pydocs/...` is built on this machine.

    Raises:
      UserError: if the data set or the split is unknown, cannot be downloaded or cannot be read.
    """
    builder = _builder(name)
    splits = builder.info.splits
    for part in split.split('+'):
        base = part.split('[')[0].strip()
        if base not in splits:
            raise UserError(f'{name} has no split {base!r}: {did_you_mean(base, splits)}')
    try:
        source = builder.as_data_source(split=split)
        len(source)
    except Exception as e:
        reason = first_line(e)
        raise UserError(
            f'Cannot read split {split!r} of {name} ({reason}). Correct the split or prepare the data set again.'
        ) from e
    return _DecodedExamples(source, f'split {split!r} of {name}')


def load_features(name: str) -> dict[str, Any]:
    """Return the TFDS features of a data set, by field."""
    return dict(_builder(name).info.features.items())


class _DecodedExamples(Sequence):
    """Examples with all bytes decoded to `str`, also in nested features."""

    def __init__(self, source: Any, name: str):
        self._source, self._name = source, name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        return self._read([range(len(self))[index]])[0]  # a range counts negative indices from its end

    def _read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            return [_decode(e) for e in self._source.__getitems__(list(indices))]
        except Exception as e:
            raise UserError(f'Cannot read {self._name} ({first_line(e)}). Prepare the data set again.') from e

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), 1024):
            yield from self._read(range(start, min(start + 1024, len(self))))


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace')
    if isinstance(value, dict):
        return {k: _decode(v) for k, v in value.items()}
    if isinstance(value, list | tuple) or getattr(getattr(value, 'dtype', None), 'kind', '') == 'O':
        return [_decode(v) for v in value]
    return value


def _builder(name: str) -> Any:
    """Return the TFDS builder of a data set, after preparing the data if necessary."""
    import tensorflow_datasets as tfds

    if name.split('/')[0] == 'pydocs':
        return _pydocs(name)
    data_dir = os.environ.get('TFDS_DATA_DIR') or None
    data_dir_name = data_dir or '~/tensorflow_datasets'
    not_found = tfds.core.registered.DatasetNotFoundError
    try:
        try:
            builder = tfds.builder(name, data_dir=data_dir)
        except not_found:  # some builders are registered only when their module is imported
            importlib.import_module(f'tensorflow_datasets.text.{name.split("/")[0]}')
            builder = tfds.builder(name, data_dir=data_dir)
    except (not_found, ImportError) as e:
        hint = did_you_mean(name.split('/')[0], _known_names(data_dir, tfds)).rstrip('.')
        raise UserError(
            f'Data set {name!r} is neither in TFDS_DATA_DIR={data_dir_name} nor in the TFDS catalog ({hint}). '
            'Set TFDS_DATA_DIR to a folder where it is prepared, or use text files instead.'
        ) from e
    except ValueError as e:
        dataset, _, config = name.partition('/')
        folders = pathlib.Path(data_dir_name).expanduser().glob(f'{dataset}/[!.]*')
        if prepared := [p.name for p in folders if p.is_dir()]:
            raise UserError(
                f'Data set {dataset} has no config {config!r} in {data_dir_name}: {did_you_mean(config, prepared)}'
            ) from e
        raise UserError(
            f'Cannot open the data set {name!r} ({first_line(e)}). Correct its name or config.'
        ) from e
    if builder.is_prepared():
        return builder
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
        logging.info('downloading %s to %s', name, data_dir_name)
        _download_and_prepare(builder, progress_bar=sys.stderr.isatty())
    except Exception as e:
        raise UserError(
            f'Data set {name} is not in TFDS_DATA_DIR={data_dir_name} and cannot be downloaded ({first_line(e)}). '
            f'Run `tfds build {name} --file_format=array_record` on a machine with internet access and set '
            'TFDS_DATA_DIR to its output.'
        ) from e
    return builder


def _known_names(data_dir: str | None, tfds: Any) -> list[str]:
    local = [p.name for p in pathlib.Path(data_dir).glob('*') if p.is_dir()] if data_dir else []
    return [*local, *tfds.list_builders(with_community_datasets=False)]


def _pydocs(name: str) -> Any:
    from bert_jax.data.pydocs import dataset, source

    config = name.partition('/')[2] or 'text'
    known = [c.name for c in dataset.Pydocs.BUILDER_CONFIGS]
    if config not in known:
        raise UserError(f'pydocs has no config {config!r}: {did_you_mean(config, known)}')
    folder = cache_dir() / f'pydocs-{source.fingerprint()}'
    with lock_folder(folder):
        builder = dataset.Pydocs(config=config, data_dir=str(folder))
        if not builder.is_prepared():
            logging.info('building %s from the documentation of the installed packages', name)
            _download_and_prepare(builder, progress_bar=False)
    return builder


def _download_and_prepare(builder: Any, progress_bar: bool) -> None:
    """Prepare a TFDS data set without the status messages that TFDS prints."""
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(progress_bar)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.display_progress_bar(True)


def _text_field(record: Any, key: str, origin: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get(key), str):
        known = [k for k, v in record.items() if isinstance(v, str)] if isinstance(record, dict) else []
        raise UserError(
            f'A record of {origin} has no text field {key!r}. Set data.text_key: {did_you_mean(key, known)}'
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
    with open(path, 'rb') as raw:
        file = gzip.GzipFile(fileobj=raw) if path.endswith('.gz') else raw
        lines: list[str] = []
        size, has_warned, is_continuation = 0, False, False
        is_jsonl = path.removesuffix('.gz').endswith('.jsonl')
        try:
            for number, line in enumerate(_lines(file, -1 if is_jsonl else 4 * MAX_DOCUMENT_CHARS), 1):
                if is_jsonl:
                    yield (
                        _parse_json_text(line, text_key, f'{path}, line {number}').split('\n'),
                        raw.tell(),
                        False,
                    )
                    continue
                if '\0' in line:
                    raise UserError(
                        f'{path!r} contains a NUL byte, so it is binary or UTF-16, not UTF-8 text. Convert it to UTF-8 '
                        'or remove it from data.sources.'
                    )
                if '\ufffd' in line and not has_warned:
                    logging.warning(
                        '%r contains invalid UTF-8, which is replaced by \ufffd; convert the file to UTF-8',
                        path,
                    )
                    has_warned = True
                is_blank = not line.strip()
                if lines and (is_blank or size + len(line) > MAX_DOCUMENT_CHARS):
                    yield lines, raw.tell(), is_continuation
                    lines, size, is_continuation = [], 0, not is_blank
                if not is_blank:
                    lines.append(line)
                    size += len(line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise UserError(
                f'{path!r} is damaged or not a gzip file ({first_line(e)}). Download it again.'
            ) from e
        if lines:
            yield lines, raw.tell(), is_continuation


def _lines(file: Any, max_bytes: int) -> Iterator[str]:
    """Yield the lines of a binary file as text; lines of more than `max_bytes` bytes come in parts."""
    decoder = codecs.getincrementaldecoder('utf-8-sig')('replace')
    while line := file.readline(max_bytes):
        yield decoder.decode(line, final=line.endswith(b'\n'))


def _parse_json_text(line: str, text_key: str, origin: str) -> str:
    if not line.strip():
        return ''
    try:
        return _text_field(json.loads(line), text_key, origin)
    except json.JSONDecodeError as e:
        raise UserError(
            f'{origin} is not valid JSON ({e.msg}). A .jsonl file holds one object per line.'
        ) from e
