"""Where text and labelled examples come from: TFDS names, text files and globs, and `pydocs`."""

import codecs
import contextlib
import glob
import gzip
import importlib
import json
import logging
import os
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError, first_line
from bert_jax.core.paths import alone, cache_dir

# A line or a document longer than this is cut, so that memory stays bounded on any input.
MAX_DOCUMENT_CHARS = 1 << 16
_SUFFIXES = ('.txt', '.txt.gz', '.jsonl', '.jsonl.gz')
_NAMED = re.compile(r'([\w-]+)=(.+)', re.DOTALL)


class Document(NamedTuple):
    """A piece of connected text.

    Attributes:
      paragraphs: its non-empty lines.
      progress: how far into its source it lies, 0 to 1.
    """

    paragraphs: list[str]
    progress: float


def named(source: str) -> tuple[str, str]:
    """The name of a corpus, such as 'de' in 'de=novels_de.txt', or '', and the source itself."""
    match = _NAMED.fullmatch(source)
    return (match[1], match[2]) if match else ('', source)


def is_files(source: str) -> bool:
    """Whether a source names text files rather than a TFDS data set."""
    return (
        source.endswith(_SUFFIXES)
        or any(c in source for c in '*?[')
        or os.path.isfile(os.path.expanduser(source))
    )


def documents(source: str, split: str, text_key: str) -> Iterator[Document]:
    """Streams the documents of one source, in order.

    In a text file a blank line ends a document. In a `.jsonl` file and in TFDS every record is one.
    Documents over `MAX_DOCUMENT_CHARS` characters are cut between paragraphs.

    Args:
      source: a TFDS name such as 'wikipedia/20230601.en', or a path or glob of `.txt`, `.txt.gz`
        or `.jsonl` files.
      split: of a TFDS data set; files have none.
      text_key: the field that holds the text, in TFDS and `.jsonl` records.

    Raises:
      UserError: if the source is not there or cannot be read.
    """
    if os.path.isdir(os.path.expanduser(source)):
        raise UserError(f'{source!r} is a folder: name the files in it, such as {source.rstrip("/")}/*.txt.')
    if not is_files(source):
        records = examples(source, split)
        for i, example in enumerate(records, 1):
            yield from _documents(_field(example, text_key, source).split('\n'), i / len(records))
        return
    paths = _paths(source)
    if not paths:
        raise UserError(f'No file matches {source!r}: give a path or glob of .txt, .txt.gz or .jsonl files.')
    total = sum(os.path.getsize(p) for p in paths) or 1
    before = 0
    for path in paths:
        for lines, offset in _file_documents(path, text_key):
            yield from _documents(lines, (before + offset) / total)
        before += os.path.getsize(path)


def _paths(source: str) -> list[str]:
    """The files that a path or glob names: those with the suffix of a text file, if it finds any."""
    pattern = os.path.expanduser(source)
    if os.path.isfile(pattern):
        return [pattern]
    found = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    return [p for p in found if p.endswith(_SUFFIXES)] or found


def sizes(source: str) -> list[int]:
    """Bytes of each file of a source; none for TFDS names and where there are no files."""
    return [os.path.getsize(p) for p in _paths(source)] if is_files(source) else []


def examples(name: str, split: str) -> Sequence[dict[str, Any]]:
    """A TFDS data set as a random-access sequence of examples, text decoded to `str`.

    Prepared folders are found through `TFDS_DATA_DIR` and need no builder code; others are
    downloaded by their builder; `pydocs/...` is built on this machine.

    Raises:
      UserError: if it cannot be had, with what to do.
    """
    builder = _builder(name)
    splits = builder.info.splits
    for part in split.split('+'):
        base = part.split('[')[0].strip()
        if base not in splits:
            raise UserError(f'{name} has no split {base!r}: {nearest(base, splits)}')
    try:
        source = builder.as_data_source(split=split)
        len(source)
    except Exception as e:
        reason = first_line(e)
        raise UserError(
            f'{name} has no readable split {split!r} ({reason}): correct it or prepare the data again.'
        ) from e
    return _Decoded(source, f'{name}, split {split!r},')


def features(name: str) -> dict[str, Any]:
    """The TFDS features of a data set, by field."""
    return dict(_builder(name).info.features.items())


class _Decoded(Sequence):
    """Turns the bytes of TFDS text features into `str`, at every depth."""

    def __init__(self, source: Any, name: str):
        self._source, self._name = source, name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._read([index % len(self)])[0]

    def _read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            return [_decode(e) for e in self._source.__getitems__(list(indices))]
        except IndexError:
            raise
        except Exception as e:
            raise UserError(f'{self._name} cannot be read ({first_line(e)}): prepare it again.') from e

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
    """The builder of a data set, prepared."""
    import tensorflow_datasets as tfds

    if name.split('/')[0] == 'pydocs':
        return _pydocs(name)
    data_dir = os.environ.get('TFDS_DATA_DIR') or None
    where = data_dir or '~/tensorflow_datasets'
    missing = tfds.core.registered.DatasetNotFoundError
    try:
        try:
            builder = tfds.builder(name, data_dir=data_dir)
        except missing:  # some builders are known only after their module was imported
            importlib.import_module(f'tensorflow_datasets.text.{name.split("/")[0]}')
            builder = tfds.builder(name, data_dir=data_dir)
    except (missing, ImportError) as e:
        hint = nearest(name.split('/')[0], _known(data_dir, tfds)).rstrip('.')
        raise UserError(
            f'There is no data set {name!r} in TFDS_DATA_DIR={where} nor in the TFDS catalogue ({hint}): '
            'point TFDS_DATA_DIR to a folder where it is prepared, or name text files instead.'
        ) from e
    except ValueError as e:
        family, _, own = name.partition('/')
        if prepared := [
            p.name for p in pathlib.Path(where).expanduser().glob(f'{family}/[!.]*') if p.is_dir()
        ]:
            raise UserError(f'There is no {own!r} of {family} in {where}: {nearest(own, prepared)}') from e
        raise UserError(f'{name!r} cannot be opened: {first_line(e)}.') from e
    if builder.is_prepared():
        return builder
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
        builder.download_and_prepare()
    except Exception as e:
        raise UserError(
            f'{name} is not in TFDS_DATA_DIR={where} and could not be downloaded ({first_line(e)}): '
            f'run `tfds build {name} --file_format=array_record` on a machine that is online and '
            'point TFDS_DATA_DIR to the result.'
        ) from e
    return builder


def _known(data_dir: str | None, tfds: Any) -> list[str]:
    local = (
        [p.name for p in pathlib.Path(data_dir).iterdir() if p.is_dir()]
        if data_dir and os.path.isdir(data_dir)
        else []
    )
    return [*local, *tfds.list_builders(with_community_datasets=False)]


def _pydocs(name: str) -> Any:
    import tensorflow_datasets as tfds

    from bert_jax.data.pydocs import dataset

    config = name.partition('/')[2] or 'text'
    known = [c.name for c in dataset.Pydocs.BUILDER_CONFIGS]
    if config not in known:
        raise UserError(f'pydocs has no config {config!r}: {nearest(config, known)}')
    folder = cache_dir() / f'pydocs-{dataset.fingerprint()}'
    with alone(folder):
        builder = dataset.Pydocs(config=config, data_dir=str(folder), file_format='array_record')
        if not builder.is_prepared():
            logging.info('making %s from the documentation of what is installed here', name)
            tfds.display_progress_bar(False)
            builder.download_and_prepare()
            tfds.display_progress_bar(True)
    return builder


def _field(record: Any, key: str, where: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get(key), str):
        known = [k for k, v in record.items() if isinstance(v, str)] if isinstance(record, dict) else []
        raise UserError(
            f'A record of {where} has no text field {key!r}: set data.text_key; {nearest(key, known)}'
        )
    return record[key].encode('utf-8', 'replace').decode('utf-8')  # JSON may hold half a surrogate pair


def _documents(lines: Sequence[str], progress: float) -> Iterator[Document]:
    """One or, if it is long, several documents of at most `MAX_DOCUMENT_CHARS`."""
    paragraphs: list[str] = []
    size = 0
    for line in lines:
        line = line.strip()
        for start in range(0, len(line), MAX_DOCUMENT_CHARS):
            part = line[start : start + MAX_DOCUMENT_CHARS]
            if paragraphs and size + len(part) > MAX_DOCUMENT_CHARS:
                yield Document(paragraphs, progress)
                paragraphs, size = [], 0
            paragraphs.append(part)
            size += len(part)
    if paragraphs:
        yield Document(paragraphs, progress)


def _file_documents(path: str, text_key: str) -> Iterator[tuple[list[str], int]]:
    """Pieces of one file, each with the number of bytes read so far."""
    with (
        open(path, 'rb') as raw,
        gzip.open(raw) if path.endswith('.gz') else contextlib.nullcontext(raw) as file,
    ):
        lines: list[str] = []
        size, warned = 0, False
        jsonl = path.removesuffix('.gz').endswith('.jsonl')
        try:
            for number, line in enumerate(_lines(file, -1 if jsonl else 4 * MAX_DOCUMENT_CHARS), 1):
                if jsonl:
                    yield [*_json_text(line, text_key, f'{path}, line {number}').split('\n')], raw.tell()
                    continue
                if '\0' in line:
                    raise UserError(
                        f'{path!r} has a NUL byte, as binary files have and UTF-16, which is not UTF-8: convert it, '
                        'take the byte out, or leave the file out of data.sources.'
                    )
                if '\ufffd' in line and not warned:
                    logging.warning(
                        '%r has what is not UTF-8, read as \ufffd: convert it if that is much', path
                    )
                    warned = True
                blank = not line.strip()
                if lines and (blank or size + len(line) > MAX_DOCUMENT_CHARS):
                    yield lines, raw.tell()
                    lines, size = [], 0
                if not blank:
                    lines.append(line)
                    size += len(line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise UserError(f'{path!r} is damaged or not gzip ({first_line(e)}): fetch it again.') from e
        if lines:
            yield lines, raw.tell()


def _lines(file: Any, most: int) -> Iterator[str]:
    """Lines of a binary file as text; one of more than `most` bytes comes in pieces."""
    decoder = codecs.getincrementaldecoder('utf-8-sig')('replace')
    while line := file.readline(most):
        yield decoder.decode(line, final=line.endswith(b'\n'))


def _json_text(line: str, text_key: str, where: str) -> str:
    if not line.strip():
        return ''
    try:
        return _field(json.loads(line), text_key, where)
    except json.JSONDecodeError as e:
        raise UserError(f'{where} is not JSON ({e.msg}): a .jsonl file has one object a line.') from e
