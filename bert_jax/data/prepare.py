"""Text to rows: documents are cut into input shards, and each shard becomes rows by a pure function.

A shard's rows depend on its documents, the tokenizer and (seed, shard number) alone, so the number
of processes changes nothing; at most a few shards are in memory at a time.
"""

import collections
import concurrent.futures.process
import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bert_jax.core import worker_pool
from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.core.paths import alone
from bert_jax.data import sources
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.rows import HEADER, MANIFEST, SOURCE, RowMaker, read_manifest, sentences
from bert_jax.data.tokenizer import Tokenizer, TokenizerConfig


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Text to pretrain on, and the rows made from it.

    Attributes:
      sources: TFDS names, files or globs; several are put one after the other. Written as NAME=SOURCE, such as
        de=novels_de.txt.gz, they are corpora that have names: languages, say. Losses are logged of each.
      split: of TFDS sources.
      validation_split: a TFDS split to hold out; empty holds out a share of the documents instead.
      validation_fraction: the share of documents held out, evenly spread; 0 holds out none.
      limit: train on the first so many characters of each corpus; 0 takes all. The tokenizer learns from all.
      text_key: the field with the text, in TFDS and `.jsonl` records.
      exponent: a corpus with a name is drawn from in proportion to the number of its rows to this power: 0.7 in
        multilingual BERT; 1 takes each row as often as any other.
      length: T, tokens in a row.
      rows: the folder of prepared rows; empty is `rows` in the working directory.
      seed: of everything random in the rows.
      shard_chars: characters of text in an input shard.
      workers: processes that prepare; 0 is one a core. Changes no row.
    """

    sources: tuple[str, ...] = ('pydocs/text',)
    split: str = 'train'
    validation_split: str = ''
    validation_fraction: float = 0.01
    limit: int = 0
    text_key: str = 'text'
    exponent: float = 1.0
    length: int = 128
    rows: str = ''
    seed: int = 0
    shard_chars: int = 4_000_000
    workers: int = 0

    def __post_init__(self) -> None:
        within(self, 'data', 0, 1, 'validation_fraction', 'exponent')
        within(self, 'data', 0, math.inf, 'limit', 'seed', 'workers')
        within(self, 'data', 1, math.inf, 'shard_chars')
        if self.names and '' in self.names:
            raise UserError('Some of data.sources have names and some have not: write all as NAME=SOURCE.')
        if self.exponent != 1 and not self.names:
            raise UserError(
                f'data.exponent={self.exponent} weighs corpora that have names: write data.sources=en=FILE,de=FILE.'
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the corpora, in order; none if they have no names."""
        names = tuple(dict.fromkeys(sources.named(s)[0] for s in self.sources))
        return () if names == ('',) else names

    def corpora(self) -> list[list[str]]:
        """The sources of each corpus; of one alone if they have no names."""
        pairs = [*map(sources.named, self.sources)]
        return [[source for name, source in pairs if name == wanted] for wanted in self.names or ('',)]


def get_tokenizer(text: TextConfig, config: TokenizerConfig, folder: pathlib.Path) -> Tokenizer:
    """The tokenizer of a run: loaded from `config.path`, kept in `folder`, or trained and kept there."""
    if config.path:
        return tokenizer_lib.load(config.path)
    file, note = folder / tokenizer_lib.FILE, folder / 'tokenizer_config.json'
    wanted = {f'tokenizer.{k}': v for k, v in dataclasses.asdict(config).items()}
    wanted |= {f'data.{k}': getattr(text, k) for k in ('sources', 'split', 'text_key')}
    wanted = json.loads(json.dumps(wanted))
    with alone(folder):
        return _kept_or_trained(text, config, wanted, file, note)


def _kept_or_trained(
    text: TextConfig, config: TokenizerConfig, wanted: dict[str, Any], file: pathlib.Path, note: pathlib.Path
) -> Tokenizer:
    if file.is_file() and note.is_file():
        try:
            before = json.loads(note.read_text())
        except json.JSONDecodeError as e:
            raise UserError(f'{str(note)!r} is damaged: choose another data.rows, or delete it.') from e
        if differs := [k for k in wanted if before.get(k) != wanted[k]]:
            raise UserError(
                f'{str(file)!r} was trained with another {differs[0]} ({before.get(differs[0])}, now {wanted[differs[0]]}): '
                'choose another data.rows, or delete it.'
            )
        return tokenizer_lib.load(file)
    logging.info('training a %s tokenizer of %d entries', config.kind, config.vocab_size)
    texts = _training_text(text, config.train_bytes)
    first = next(texts, None)
    if first is None:
        raise _no_text(text.sources)
    tokenizer = tokenizer_lib.train(itertools.chain([first], texts), config)
    if len(tokenizer) < config.vocab_size:
        logging.info('the text is too short for more than %d entries', len(tokenizer))
    tokenizer.save(file)
    note.write_text(json.dumps(wanted, indent=2) + '\n')
    return tokenizer


def prepare(
    text: TextConfig, maker: RowMaker, tokenizer: Tokenizer, folder: pathlib.Path, run: Any = None
) -> dict[str, Any]:
    """Writes the rows of a corpus to `folder` and returns the manifest; reuses what is there.

    The folder appears under its name when all rows are in it; until then it is `NAME.partial`. `run` runs the
    work over the shards: processes on this machine, or `beam.runner`.

    Raises:
      UserError: if the corpus has no text, or the folder holds rows of other settings or of text
        files that have another size now.
    """
    ignored = ('rows', 'workers', 'exponent')
    wanted = {k: v for k, v in dataclasses.asdict(text).items() if k not in ignored}
    wanted |= {'maker': [type(maker).__name__, dataclasses.asdict(maker)], 'tokenizer': tokenizer.fingerprint}  # type: ignore[call-overload]
    wanted |= {'bytes': [sources.sizes(source) for corpus in text.corpora() for source in corpus]}
    wanted = json.loads(json.dumps(wanted))
    with alone(folder.parent):
        if (folder / MANIFEST).is_file():
            return _kept(wanted, folder)
        return _make(text, maker, tokenizer, folder, wanted, run or _in_order)


def _kept(wanted: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of finished rows, if they are those that are wanted."""
    manifest = read_manifest(folder)
    gone = not any(wanted['bytes'])  # rows may travel without their text
    before = {'limit': 0, **manifest['made_from']}  # rows of before there were limits
    differs = [k for k in wanted if before.get(k) != wanted[k] and not (k == 'bytes' and gone)]
    if differs == ['bytes']:
        raise UserError(
            f'The text files have changed since the rows in {str(folder)!r} were prepared: '
            'choose another data.rows, or delete them.'
        )
    if differs:
        raise UserError(
            f'The rows in {str(folder)!r} were prepared with another {differs[0]} '
            f'({before.get(differs[0])}, now {wanted[differs[0]]}): choose another data.rows, or delete them.'
        )
    return manifest


def _make(
    text: TextConfig,
    maker: RowMaker,
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    wanted: dict[str, Any],
    run: Any,
) -> dict[str, Any]:
    """Writes the rows, and last the manifest."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f'{str(folder)!r} holds files that are no prepared rows: choose another data.rows.')
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tokenizer.save(partial / tokenizer_lib.FILE)
    dtype = np.dtype(np.uint16 if max(len(tokenizer), maker.length) < 1 << 16 else np.uint32)
    work = functools.partial(_make_shard, maker=maker, folder=partial, seed=text.seed, dtype=dtype)
    files: dict[str, list[str]] = {'train': [], 'validation': []}
    parts = {split: [0] * len(text.corpora()) for split in files}
    counts: collections.Counter[str] = collections.Counter()
    for shard, done in run(work, shards(text), text.workers or os.cpu_count() or 1, partial):
        file = done.pop('file')
        if done['rows']:
            files[shard.split].append(file)
            parts[shard.split][shard.source] += done['rows']
        counts.update({f'{shard.split}_{k}': v for k, v in done.items()})
    if 0 in parts['train']:
        shutil.rmtree(partial)
        raise _no_text(text.corpora()[parts['train'].index(0)])
    for name, held_out in zip(text.names, parts['validation'], strict=False):
        if not held_out:
            logging.warning('nothing is held out of %s: its loss will not be known', name)
    manifest = {
        'made_from': wanted,
        'length': maker.length,
        'row': f'[{HEADER} + {maker.length}]',
        'dtype': dtype.name,
        'files': files,
        'parts': parts,
        'counts': dict(counts),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    os.replace(partial, folder)
    return manifest


def _no_text(corpus: Sequence[str]) -> UserError:
    return UserError(
        f'No text to train on was found in {", ".join(corpus)}: '
        'give files with text, hold out less (data.validation_fraction), or take more of it (data.limit).'
    )


def _training_text(text: TextConfig, most: int) -> Iterator[str]:
    """Up to `most` bytes of paragraphs, an equal share of each corpus and of each of its sources."""
    for corpus in text.corpora():
        for source in corpus:
            left = most // len(text.corpora()) // len(corpus)
            for document in sources.documents(source, text.split, text.text_key):
                yield from document.paragraphs
                left -= sum(len(p.encode()) for p in document.paragraphs)
                if left < 0:
                    break


class Shard(NamedTuple):
    """A stretch of text that is made into rows at once.

    Attributes:
      number: from 0.
      split: train or validation.
      source: the number of its corpus.
      documents: their paragraphs.
      progress: how far into all text it lies, 0 to 1.
    """

    number: int
    split: str
    source: int
    documents: list[list[str]]
    progress: float


def shards(text: TextConfig) -> Iterator[Shard]:
    """Input shards, corpus by corpus."""
    share = 0 if text.validation_split else text.validation_fraction
    found = [(source, number) for number, corpus in enumerate(text.corpora()) for source in corpus]
    streams = [(source, number, text.split, '') for source, number in found]
    if text.validation_split:
        if all(sources.is_files(source) for source, _ in found):
            raise UserError(
                f'data.validation_split={text.validation_split!r} is a split of TFDS data, but the sources are files: '
                'leave it empty and set data.validation_fraction.'
            )
        streams += [(s, i, text.validation_split, 'validation') for s, i in found if not sources.is_files(s)]
    held: dict[str, list[list[str]]] = {'train': [], 'validation': []}
    sizes = {'train': 0, 'validation': 0}
    number, count, used = itertools.count(), 0, 0
    for i, (source, corpus, split, fixed) in enumerate(streams):
        for document in sources.documents(source, split, text.text_key):
            count += 1
            due = int(count * share) > int((count - 1) * share)
            goes = fixed or ('validation' if due else 'train')
            paragraphs = document.paragraphs
            if text.limit and goes == 'train':
                paragraphs = _first(paragraphs, text.limit - used)
                cut = len(paragraphs) < len(document.paragraphs)
                used = text.limit if cut else used + sum(map(len, paragraphs))
            held[goes] += [paragraphs] if paragraphs else []
            sizes[goes] += sum(map(len, paragraphs))
            if sizes[goes] >= text.shard_chars:
                yield Shard(next(number), goes, corpus, held[goes], (i + document.progress) / len(streams))
                held[goes], sizes[goes] = [], 0
        if i + 1 < len(streams) and (corpus, fixed) == (streams[i + 1][1], streams[i + 1][3]):
            continue
        for goes, documents in held.items():
            if documents:
                yield Shard(next(number), goes, corpus, documents, (i + 1) / len(streams))
        if used < text.limit and not fixed:
            logging.warning(
                '%s has %d characters to train on, fewer than data.limit=%d', source, used, text.limit
            )
        held, sizes, used = {goes: [] for goes in held}, dict.fromkeys(sizes, 0), 0


def _first(paragraphs: list[str], most: int) -> list[str]:
    """The first paragraphs, as long as they have not more than `most` characters."""
    ends = itertools.accumulate(map(len, paragraphs))
    return [p for p, end in zip(paragraphs, ends, strict=True) if end <= most]


def documents(text: TextConfig, split: str) -> Iterator[list[str]]:
    """The documents of 'train' or, what is held out, of 'validation', each a list of its paragraphs."""
    for shard in shards(text):
        if shard.split == split:
            yield from shard.documents


def _in_order(
    work: Any, shards: Iterable[Shard], workers: int, folder: pathlib.Path
) -> Iterator[tuple[Shard, dict[str, Any]]]:
    """Runs `work` over the shards in a process pool, a few at a time; yields them and their results in order."""
    pending: collections.deque[Any] = collections.deque()
    bar = tqdm(
        total=100,
        desc='prepare',
        unit='%',
        bar_format='{l_bar}{bar}| {elapsed}<{remaining}{postfix}',
        mininterval=0.5,
    )
    rows = tokens = 0

    def finish() -> tuple[Shard, dict[str, Any]]:
        nonlocal rows, tokens
        shard, future = pending.popleft()
        result = future.result()
        rows, tokens = rows + result['rows'], tokens + result['tokens']
        bar.set_postfix_str(f'{rows:,} rows, {tokens / 1e6:.1f}M tokens', refresh=False)
        bar.update(100 * shard.progress - bar.n)
        return shard, result

    with (
        bar,
        worker_pool.pool(workers, start_worker, folder / tokenizer_lib.FILE) as pool,
    ):
        try:
            for shard in shards:
                pending.append((shard._replace(documents=[]), pool.submit(work, shard)))
                if len(pending) > workers + 1:
                    yield finish()
            while pending:
                yield finish()
        except concurrent.futures.process.BrokenProcessPool as e:
            raise UserError('A worker process was killed: give more memory, or fewer data.workers.') from e
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker_tokenizer: Tokenizer


def start_worker(file: pathlib.Path) -> None:
    """Loads the tokenizer once in each worker process."""
    global _worker_tokenizer
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    _worker_tokenizer = tokenizer_lib.load(file)


def _make_shard(
    shard: Shard, *, maker: RowMaker, folder: pathlib.Path, seed: int, dtype: np.dtype
) -> dict[str, Any]:
    """Rows of one input shard, written to a file of its own."""
    from array_record.python import array_record_module

    split_documents = [['\n'.join(d)] if maker.whole else sentences(d) for d in shard.documents]
    ids = iter(_worker_tokenizer.encode([s for d in split_documents for s in d]))
    encoded = [[t for t in itertools.islice(ids, len(d)) if len(t)] for d in split_documents]
    rng = np.random.default_rng((seed, shard.number))
    file = f'{shard.split}-{shard.number:05d}.array_record'
    rows = tokens = 0
    writer = array_record_module.ArrayRecordWriter(str(folder / file), 'group_size:1')
    for row in maker([d for d in encoded if d], _worker_tokenizer, rng):
        row[SOURCE] = shard.source
        writer.write(row.astype(dtype).tobytes())
        rows, tokens = rows + 1, tokens + int(row[0])
    writer.close()
    if not rows:
        (folder / file).unlink()
    return {'file': file, 'rows': rows, 'tokens': tokens, 'documents': len(shard.documents)}
