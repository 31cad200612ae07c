"""Prepare rows from text: cut the documents into shards and turn each shard into rows by a pure function.

The rows of a shard depend only on its documents, the tokenizer and (seed, shard number), so the number of processes
does not change them. Only a few shards are in memory at a time.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import math
import multiprocessing
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bert_jax.core import paths, worker_pool
from bert_jax.core.config import check_range
from bert_jax.core.environment import describe_process
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats, provenance, sources, tfds_data
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.rows import CORPUS, LABEL, MANIFEST, RowMaker, encode_sentences, read_manifest
from bert_jax.data.tokenizer import Tokenizer

# Files of an incomplete preparation: what it is made with, and the result of each shard that is complete.
_MADE_WITH, _RESULT = 'made_with.json', '.result'
_MAX_DOCUMENTS = 50_000  # in a shard: each takes memory, however short it is


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Text to pretrain on, and how to prepare rows from it.

    Attributes:
      sources: TFDS names, files or globs, read one after another. Sources written as NAME=SOURCE, such as
        de=novels_de.txt.gz, form named corpora, for example languages, whose losses are reported separately.
      split: split of TFDS sources to train on.
      validation_split: TFDS split to hold out for validation. Empty holds out a fraction of the documents instead.
      validation_fraction: fraction of the text of each corpus to hold out, as whole documents; 0 holds out none. Of a
        corpus that is one document, the end is held out.
      max_train_chars: largest number of characters of each corpus to train on, from the start; 0 uses all. The
        tokenizer is trained on whole corpora.
      text_key: field with the text of a record, in TFDS data sets and in files such as `.jsonl`.
      sampling_exponent: exponent of the sampling weights: a named corpus is sampled in proportion to its number of
        rows to this power. Multilingual BERT uses 0.7; 1 samples all rows uniformly.
      length: T, number of tokens in a row.
      rows_dir: folder of the prepared rows. Empty uses the folder `rows` in the working directory.
      seed: seed of all randomness in the rows.
      shard_chars: number of characters of text in a shard.
      workers: number of processes that prepare rows; 0 uses one per core. Does not change the rows.
    """

    sources: tuple[str, ...] = ('pydocs/text',)
    split: str = 'train'
    validation_split: str = ''
    validation_fraction: float = 0.01
    max_train_chars: int = 0
    text_key: str = 'text'
    sampling_exponent: float = 1.0
    length: int = 128
    rows_dir: str = ''
    seed: int = 0
    shard_chars: int = 4_000_000
    workers: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, 'sources', files.join_at_commas(self.sources))
        check_range(self, 'data', 0, 1, 'validation_fraction', 'sampling_exponent')
        check_range(self, 'data', 0, math.inf, 'max_train_chars', 'seed', 'workers')
        check_range(self, 'data', 1, math.inf, 'shard_chars')
        if self.corpus_names and '' in self.corpus_names:
            raise UserError(
                'Some data.sources have a name and some do not. Write all of them as NAME=SOURCE.'
            )
        if self.sampling_exponent != 1 and not self.corpus_names:
            raise UserError(
                f'data.sampling_exponent={self.sampling_exponent} needs named corpora. '
                'Write data.sources as en=FILE,de=FILE.'
            )
        self.check_splits()

    def check_splits(self, dataset: str = '') -> None:
        """Raise UserError if training and validation would use the same examples, see `tfds_data.splits_overlap`."""
        splits = self.split, self.validation_split
        if self.validation_split and tfds_data.splits_overlap(*splits, dataset):
            raise UserError(
                f'data.split={self.split!r} and data.validation_split={self.validation_split!r} would train and '
                'evaluate on the same examples. Set data.validation_split to another split, or to "" to hold out '
                'data.validation_fraction.'
            )

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """Names of the corpora in order; empty if they have no names."""
        names = tuple(dict.fromkeys(sources.parse_source(s)[0] for s in self.sources))
        return () if names == ('',) else names

    def corpora(self) -> list[list[str]]:
        """Return a list of sources for each of `corpus_names`; one list if there are no names."""
        pairs = [*map(sources.parse_source, self.sources)]
        return [[source for name, source in pairs if name == corpus] for corpus in self.corpus_names or ('',)]


def describe_change(settings: Mapping[str, Any], earlier: Mapping[str, Any]) -> str:
    """Describe the first of the settings that an existing result was not made with, such as 'length (32, now 64)'."""
    changed = (key for key in settings if earlier.get(key) != settings[key])
    return next((f'{key} ({earlier.get(key)}, now {settings[key]})' for key in changed), '')


def prepare(
    text: TextConfig,
    row_maker: RowMaker,
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    run_shards: Any = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Prepare the rows of a text in `folder`, or reuse those that are there.

    Rows are written to `FOLDER.partial`, which is renamed when it is complete. If the process dies, the next one continues
    with the shards that are not there yet.

    Args:
      text: the text and settings.
      row_maker: turns documents into rows.
      tokenizer: encodes the documents.
      folder: output folder.
      run_shards: runs the work on all shards, such as `beam.make_runner(...)`; None uses a local process pool.
      replace: whether to replace rows that were prepared with other settings or from files that have changed since.

    Returns:
      The manifest of the rows.

    Raises:
      UserError: if a corpus has no text, or the folder holds such rows and `replace` is false.
    """
    ignored = ('rows_dir', 'workers', 'sampling_exponent')
    settings = {k: v for k, v in dataclasses.asdict(text).items() if k not in ignored}
    packing = dataclasses.asdict(row_maker)  # type: ignore[call-overload]
    settings |= {
        'row_maker': [type(row_maker).__name__, {k: v for k, v in packing.items() if v is not None}],
        'tokenizer': tokenizer.fingerprint,
        'file_sizes': [sources.file_sizes(source) for corpus in text.corpora() for source in corpus],
    }
    settings = json.loads(json.dumps(settings))
    with paths.lock_folder(folder.parent):
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder)
            if not (problem := _describe_stale_rows(settings, manifest['settings'], folder)):
                return manifest
            if not replace:
                raise UserError(f'{problem} Delete the rows or choose another data.rows_dir.')
            logging.info('%s They are prepared again.', problem)
            shutil.rmtree(folder)
        return _write_rows(text, row_maker, tokenizer, folder, settings, run_shards or _run_in_pool)


def _describe_stale_rows(
    settings: Mapping[str, Any], earlier: Mapping[str, Any], folder: pathlib.Path
) -> str:
    """Return a sentence that says how rows differ from those that the settings would give; empty if they do not."""
    sizes = settings['file_sizes']
    if change := describe_change(_flatten(settings), _flatten(earlier)):
        return f'The rows in {str(folder)!r} were prepared with a different {change}.'
    if any(sizes) and sizes != earlier['file_sizes']:  # rows may be copied without their text
        return f'The text files have changed since the rows in {str(folder)!r} were prepared.'
    return ''


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of rows without the sizes of files, and with the settings of the row maker among them."""
    name, packing = settings['row_maker']
    segmenter = ' '.join(packing.get('segmenter', {}).values()) or None
    others = {key: value for key, value in settings.items() if key not in ('row_maker', 'file_sizes')}
    return {'row_maker': name, **packing, 'segmenter': segmenter, **others}


def _write_rows(
    text: TextConfig,
    row_maker: RowMaker,
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    settings: dict[str, Any],
    run_shards: Any,
) -> dict[str, Any]:
    """Write the rows, then the manifest, which marks the folder as complete."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f'{str(folder)!r} contains files other than prepared rows. Choose another data.rows_dir.'
        )
    check_text(text)
    partial, process = folder.with_name(folder.name + '.partial'), describe_process()
    _continue_or_clear(
        partial, {'settings': settings, **{key: process[key] for key in ('commit', 'versions')}}
    )
    tokenizer.save(partial / tokenizer_lib.FILE)
    num_ids = len(tokenizer) * (2 if getattr(row_maker, 'segmenter', None) else 1)  # see `encode_sentences`
    dtype = np.dtype(np.uint16 if max(num_ids, row_maker.length) < 1 << 16 else np.uint32)
    work = functools.partial(_make_shard_rows, row_maker, tokenizer, text.seed, dtype, folder=partial)
    files: dict[str, list[str]] = {'train': [], 'validation': []}
    corpus_sizes = {split: [0] * len(text.corpora()) for split in files}
    counts: collections.Counter[str] = collections.Counter()
    num_random = dict.fromkeys(files, 0)  # rows with label 1
    for result in run_shards(work, make_shards(text), text.workers or os.cpu_count() or 1, partial):
        split = result['split']
        if result['rows']:
            files[split].append(result['file'])
            corpus_sizes[split][result['corpus']] += result['rows']
        counts.update({f'{split}_{k}': result[k] for k in ('rows', 'tokens', 'documents')})
        num_random[split] += result['positive']
    if 0 in corpus_sizes['train']:
        shutil.rmtree(partial)
        raise no_text_error(text.corpora()[corpus_sizes['train'].index(0)])
    for name, held_out in zip(text.corpus_names, corpus_sizes['validation'], strict=False):
        if not held_out:
            logging.warning('no text of %s is held out, so its validation loss will be missing', name)
    for split in files:
        if files[split] and not num_random[split]:
            _warn_of_consecutive_segments(text, row_maker, split)
    manifest = {
        'settings': settings,
        'tokenizer': provenance.describe_tokenizer(tokenizer),
        'data': provenance.describe_text(text),
        'process': process,
        'length': row_maker.length,
        'dtype': dtype.name,
        'files': files,
        'corpus_sizes': corpus_sizes,
        'counts': dict(counts),
    }
    for file in (partial / _MADE_WITH, *partial.glob(f'*{_RESULT}')):
        file.unlink()
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    os.replace(partial, folder)
    return manifest


def _continue_or_clear(partial: pathlib.Path, made_with: dict[str, Any]) -> None:
    """Create the folder of incomplete rows, or keep it if a process that died made it with the same code and settings."""
    file = partial / _MADE_WITH
    with contextlib.suppress(OSError, ValueError):
        if paths.read_json(file) == made_with:
            logging.info('kept %d parts of an interrupted preparation', len([*partial.glob(f'*{_RESULT}')]))
            return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    paths.write_atomic(file, json.dumps(made_with))


def _warn_of_consecutive_segments(text: TextConfig, row_maker: Any, split: str) -> None:
    """Warn that no row of a split has a random segment, if next-sentence prediction needs some."""
    if getattr(row_maker, 'sentence_objective', '') == 'random' and row_maker.negative_rate:
        can_hold_out_more = split == 'validation' and not text.validation_split
        logging.warning(
            'no %s row has a random second segment for next-sentence prediction, which needs several documents; '
            'separate documents by blank lines, %sset task.sentence_objective=swap',
            split,
            'raise data.validation_fraction, or ' if can_hold_out_more else 'or ',
        )


def no_text_error(corpus: Sequence[str]) -> UserError:
    return UserError(
        f'There is no text to train on in {", ".join(corpus)}. '
        'Choose sources with text, lower data.validation_fraction or raise data.max_train_chars.'
    )


class Shard(NamedTuple):
    """A part of the text that one worker turns into rows.

    Attributes:
      number: index of the shard, counted from 0.
      split: 'train' or 'validation'.
      corpus: index of the corpus.
      documents: the documents, each a list of paragraphs.
      progress: fraction of all text up to the end of the shard, from 0 to 1.
    """

    number: int
    split: str
    corpus: int
    documents: list[list[str]]
    progress: float


class _Stream(NamedTuple):
    """A source to read.

    Attributes:
      source: TFDS name, file or glob.
      corpus: index of the corpus that the source belongs to.
      split: TFDS split to read; ignored for files.
      is_held_out: whether all its documents are for validation.
    """

    source: str
    corpus: int
    split: str
    is_held_out: bool


def _streams(text: TextConfig) -> list[_Stream]:
    """List the sources in reading order: all training splits, then all validation splits."""
    pairs = [(source, i) for i, corpus in enumerate(text.corpora()) for source in corpus]
    streams = [_Stream(source, i, text.split, False) for source, i in pairs]
    if text.validation_split:
        with_splits = [(source, i) for source, i in pairs if not formats.is_path(source)]
        if not with_splits:
            raise UserError(
                f'data.validation_split={text.validation_split!r} needs TFDS data, but the sources are files. '
                'Leave it empty and set data.validation_fraction.'
            )
        for source, _ in with_splits:
            text.check_splits(source)
        streams += [_Stream(source, i, text.validation_split, True) for source, i in with_splits]
    return streams


def check_text(text: TextConfig) -> None:
    """Read the first document of each source.

    Raises:
      UserError: if a source or a split does not exist, or the document has no field `text_key`.
    """
    for stream in _streams(text):
        next(sources.read_documents(stream.source, stream.split, text.text_key), None)


def make_shards(text: TextConfig) -> Iterator[Shard]:
    """Stream the text as shards, corpus by corpus. Each document is in one split."""
    fraction = 0 if text.validation_split else text.validation_fraction
    limit = text.max_train_chars
    streams = _streams(text)
    number = itertools.count()
    groups = itertools.groupby(enumerate(streams), lambda item: (item[1].corpus, item[1].is_held_out))
    for (corpus, holds_out_all), group in groups:
        pending: dict[str, list[list[str]]] = {'train': [], 'validation': []}
        sizes, train_chars = dict.fromkeys(pending, 0), 0
        held_out = _HeldOut(1 if holds_out_all else fraction)
        for i, stream in group:
            for part in sources.read_documents(stream.source, stream.split, text.text_key):
                split = 'validation' if held_out(part) else 'train'
                paragraphs = part.paragraphs
                if limit and split == 'train':
                    paragraphs = _truncate(paragraphs, limit - train_chars)
                    is_cut = len(paragraphs) < len(part.paragraphs)
                    train_chars = limit if is_cut else train_chars + sum(map(len, paragraphs))
                if part.is_continuation and pending[split]:
                    pending[split][-1] += paragraphs
                else:
                    pending[split] += [paragraphs] if paragraphs else []
                sizes[split] += sum(map(len, paragraphs))
                if sizes[split] >= text.shard_chars or len(pending[split]) >= _MAX_DOCUMENTS:
                    progress = (i + part.progress) / len(streams)
                    yield Shard(next(number), split, corpus, pending[split], progress)
                    pending[split], sizes[split] = [], 0
        if held_out.documents == 1 and 0 < fraction < 1:
            _hold_out_end(pending, round(fraction * held_out.chars), stream.source)
        for split, documents in pending.items():
            if documents:
                yield Shard(next(number), split, corpus, documents, (i + 1) / len(streams))
        if train_chars < limit and not holds_out_all:
            logging.warning(
                '%s has only %d characters to train on, fewer than data.max_train_chars=%d',
                stream.source,
                train_chars,
                limit,
            )


class _HeldOut:
    """Decides for each document of a corpus whether to hold it out.

    Whole documents are held out, evenly spaced, as many as make up a fraction of the characters. The first document is
    not held out, unless all are.

    Attributes:
      documents: number of documents so far.
      chars: their number of characters.
    """

    def __init__(self, fraction: float):
        self._fraction, self._held_out_chars, self._is_held_out = fraction, 0, False
        self.documents = self.chars = 0

    def __call__(self, part: sources.Document) -> bool:
        """Return whether the document is held out; all parts of a document get the same answer."""
        if not part.is_continuation:
            self.documents += 1
            self._is_held_out = self._fraction == 1 or self._held_out_chars < self._fraction * self.chars
        size = sum(map(len, part.paragraphs))
        self.chars += size
        self._held_out_chars += size * self._is_held_out
        return self._is_held_out


def _hold_out_end(pending: dict[str, list[list[str]]], chars: int, source: str) -> None:
    """Hold out the last paragraphs, about `chars` characters, of a corpus that is a single document.

    If the document has only one paragraph, nothing is held out.
    """
    paragraphs = pending['train'][-1] if pending['train'] else []
    ends = [*itertools.accumulate(map(len, reversed(paragraphs)))]
    count = min(max(1, sum(end <= chars for end in ends)), len(paragraphs) - 1)
    if count > 0:
        pending['train'][-1], pending['validation'] = paragraphs[:-count], [paragraphs[-count:]]
        logging.info('%s is one document, so its last %d characters are held out', source, ends[count - 1])


def _truncate(paragraphs: list[str], max_chars: int) -> list[str]:
    """Return the longest prefix of whole paragraphs with at most `max_chars` characters."""
    ends = itertools.accumulate(map(len, paragraphs))
    return [p for p, end in zip(paragraphs, ends, strict=True) if end <= max_chars]


def read_documents(text: TextConfig, split: str) -> Iterator[list[str]]:
    """Stream the documents of 'train' or 'validation', each a list of paragraphs."""
    for shard in make_shards(text):
        if shard.split == split:
            yield from shard.documents


def _run_in_pool(
    work: Any, shards: Iterable[Shard], workers: int, folder: pathlib.Path
) -> Iterator[dict[str, Any]]:
    """Run `work` on all shards, a few at a time, and yield its results in order.

    With one worker, `work` runs in a thread instead of a process.
    """
    layout = '{l_bar}{bar}| {elapsed}<{remaining}{postfix}'
    has_bar = sys.stderr.isatty()
    bar = tqdm(total=100, desc='prepare', bar_format=layout, disable=not has_bar)
    rows = tokens = 0
    counts, last_logged = '', time.monotonic()
    died = 'A worker process was killed, possibly out of memory. Lower data.workers or data.shard_chars.'
    with bar:
        for result in worker_pool.map_ahead(work, shards, workers if workers > 1 else 0, workers + 1, died):
            rows, tokens = rows + result['rows'], tokens + result['tokens']
            percent, counts = 100 * result['progress'], f'{rows:,} rows, {tokens:,} tokens'
            bar.set_postfix_str(counts, refresh=False)
            bar.update(percent - bar.n)
            if not has_bar and time.monotonic() - last_logged >= 5:
                logging.info('preparing rows: %.0f %%, %s', percent, counts)
                last_logged = time.monotonic()
            yield result
    if not has_bar:
        logging.info('prepared %s', counts)


def _make_shard_rows(
    row_maker: RowMaker, tokenizer: Tokenizer, seed: int, dtype: np.dtype, shard: Shard, folder: pathlib.Path
) -> dict[str, Any]:
    """Write the rows of a shard to a file in `folder`, unless they are there.

    Returns:
      The attributes of the shard, but with the number of documents instead of their text, and `file`, `rows`,
      `tokens` and `positive`: the name of the file, what it holds, and the number of rows with label 1.
    """
    from array_record.python import array_record_module

    result_file = folder / f'{shard.number:05d}{_RESULT}'
    with contextlib.suppress(OSError, ValueError):  # there is none
        return paths.read_json(result_file)
    if multiprocessing.parent_process():  # the other workers use the other cores
        os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    if row_maker.whole_documents:
        encoded = [[ids] for ids in tokenizer.encode(['\n'.join(d) for d in shard.documents]) if len(ids)]
    else:
        encoded = encode_sentences(shard.documents, tokenizer, getattr(row_maker, 'segmenter', None))
    rng = np.random.default_rng((seed, shard.number))
    file = f'{shard.split}-{shard.number:05d}.array_record'
    rows = tokens = positive = 0
    writer = array_record_module.ArrayRecordWriter(str(folder / file), 'group_size:1')
    for row in row_maker([d for d in encoded if d], tokenizer, rng):
        row[CORPUS] = shard.corpus
        writer.write(row.astype(dtype).tobytes())
        rows, tokens, positive = rows + 1, tokens + int(row[0]), positive + int(row[LABEL] == 1)
    writer.close()
    if not rows:
        (folder / file).unlink()
    counts = {'rows': rows, 'tokens': tokens, 'positive': positive, 'documents': len(shard.documents)}
    result = {**shard._asdict(), **counts, 'file': file}
    paths.write_atomic(result_file, json.dumps(result))  # marks the rows of the shard as complete
    return result
