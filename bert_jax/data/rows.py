"""Rows: fixed-length training examples, how BERT's are packed, and how they lie on disk.

A row is [4 + T] unsigned integers: the number of real tokens, the number of them in the first
segment, a label, a source, then the tokens, padded. `Row` names these parts.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer

HEADER = 4
SOURCE = 3  # where in it the number of the source stands
MANIFEST = 'manifest.json'

# A sentence ends at . ! or ? before a space, maybe with one closing quote between, or at a full-width stop.
_SENTENCE_END = re.compile(r'(?<=[.!?])\s+|(?<=[.!?]["\'”’»)\]])\s+|(?<=[。！？])')


class Row(NamedTuple):
    """A row taken apart.

    Attributes:
      tokens: [T], [CLS] first, segments closed by [SEP], padded.
      length: real tokens.
      first: of these, how many belong to the first segment.
      label: of the row: 0 for a true next segment or 1 for another; or a class.
      source: of the corpora that have names, the number of the one it is from.
    """

    tokens: np.ndarray
    length: int
    first: int
    label: int
    source: int

    def inputs(self) -> dict[str, np.ndarray]:
        """What an encoder takes: `tokens`, `segments` and `valid`, [T] each."""
        index = np.arange(len(self.tokens))
        valid = index < self.length
        return {
            'tokens': self.tokens,
            'segments': ((index >= self.first) & valid).astype(np.int32),
            'valid': valid,
        }


def unpack(row: np.ndarray) -> Row:
    """Takes [4 + T] integers apart."""
    return Row(row[HEADER:].astype(np.int32), *map(int, row[:HEADER]))


def pack(a: np.ndarray, b: np.ndarray | None, label: int, length: int, tokenizer: Tokenizer) -> np.ndarray:
    """Lays out [CLS] a [SEP] or [CLS] a [SEP] b [SEP] as a row of `length` tokens.

    The tokenizer says which tokens these are, and how often [SEP] stands between two texts.
    """
    row = np.full(HEADER + length, tokenizer.pad, np.uint32)
    middle: list[Any] = [] if b is None else [tokenizer.between, b]
    tokens = np.concatenate([[tokenizer.cls], a, *middle, [tokenizer.sep]])
    row[:HEADER] = len(tokens), len(a) + 2, label, 0
    row[HEADER : HEADER + len(tokens)] = tokens
    return row


def room(length: int, tokenizer: Tokenizer, texts: int) -> int:
    """How many tokens of one text or two fit into a row of `length` beside the special ones."""
    return length - 2 - (texts - 1) * len(tokenizer.between)


def sentences(paragraphs: Sequence[str]) -> list[str]:
    """Splits paragraphs at the ends of sentences."""
    return [s for p in paragraphs for s in _SENTENCE_END.split(p) if s and not s.isspace()]


class RowMaker(Protocol):
    """What a pretraining task gives to `prepare`; must pickle, and import no JAX.

    Attributes:
      length: T, tokens in a row.
      whole: whether a document is one text, paragraphs by line, or is split into sentences, the space between
        which is lost.
    """

    length: int
    whole: ClassVar[bool]

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Rows [4 + T] from documents, each a list of its sentences' token ids, or of one array if `whole`."""
        ...


@dataclasses.dataclass(frozen=True)
class SegmentRows:
    """BERT's rows of two segments (Devlin et al. 2019, section 3.1 and appendix A.2).

    Sentences are gathered until they fill a row, cut at a random sentence into two segments, and
    the second is replaced by text from another document half of the time.

    Attributes:
      length: T, tokens in a row.
      next: 'random' is BERT's next-sentence prediction: label 1 marks a segment from elsewhere;
        'swap' is ALBERT's sentence order (Lan et al. 2020): label 1 marks swapped segments;
        'none' makes rows of one segment.
      next_rate: how often the label is 1.
      short_rate: share of the rows that aim at a random shorter length.
    """

    whole: ClassVar[bool] = False
    length: int
    next: Literal['random', 'swap', 'none'] = 'random'
    next_rate: float = 0.5
    short_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.length < 5:
            raise UserError(
                f'Rows of {self.length} tokens have no room for text: set data.length to 5 or more.'
            )
        if not (0 <= self.next_rate <= 1 and 0 <= self.short_rate <= 1):
            rates = f'task.next_rate={self.next_rate} and task.short_rate={self.short_rate}'
            raise UserError(f'{rates} must be shares, from 0 to 1.')

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        most = room(self.length, tokenizer, 1 if self.next == 'none' else 2)
        documents = [_cut(d, max(1, most // 2)) for d in documents]
        documents = [d for d in documents if d]
        for i in range(len(documents)):
            for a, b, label in self._segments(documents, i, most, rng):
                a, b = (a[:most], None) if b is None else truncate_pair(a, b, most, rng)
                yield pack(a, b, label, self.length, tokenizer)

    def _segments(
        self, documents: list[list[np.ndarray]], index: int, room: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, int]]:
        """Segment pairs of one document, before truncation."""
        document = documents[index]
        start = 0
        while start < len(document):
            target = int(rng.integers(2, room + 1)) if rng.random() < self.short_rate else room
            end, size = start, 0
            while end < len(document) and size < target:
                size += len(document[end])
                end += 1
            if self.next == 'none':
                if size > target and end - start > 1:  # a sentence that does not fit begins the next row
                    end -= 1
                yield np.concatenate(document[start:end]), None, 0
                start = end
                continue
            middle = start + (int(rng.integers(1, end - start)) if end - start > 1 else 1)
            a = np.concatenate(document[start:middle])
            if self.next == 'swap':
                if middle == end:  # a sentence alone: its halves are the segments
                    a, b = np.split(a, [len(a) // 2])
                else:
                    b = np.concatenate(document[middle:end])
                start = end
                if not len(a):
                    continue
                swapped = rng.random() < self.next_rate
                yield (b, a, 1) if swapped else (a, b, 0)
            elif middle == end or rng.random() < self.next_rate:
                yield a, _elsewhere(documents, index, target - len(a), rng), 1
                start = middle  # what the random segment displaced is used by the next row
            else:
                yield a, np.concatenate(document[middle:end]), 0
                start = end


def _cut(sentences_: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """Cuts sentences over `most` tokens, so that text without full stops is not lost."""
    return [s[i : i + most] for s in sentences_ for i in range(0, len(s), most)]


def _elsewhere(
    documents: list[list[np.ndarray]], index: int, target: int, rng: np.random.Generator
) -> np.ndarray:
    """About `target` tokens from a random place in another document (in the same, if it is alone)."""
    other = int(rng.integers(len(documents) - 1)) if len(documents) > 1 else 0
    document = documents[other + (other >= index and len(documents) > 1)]
    start = int(rng.integers(len(document)))
    end, size = start, 0
    while end < len(document) and (size < target or end == start):
        size += len(document[end])
        end += 1
    return np.concatenate(document[start:end])


def truncate_pair(
    a: np.ndarray, b: np.ndarray, room: int, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Takes tokens from the longer segment until both fit: from the end, or with `rng` from either end."""
    if len(a) + len(b) <= room:
        return a, b
    # Taking one by one from the longer first evens the lengths out, then alternates, `b` first.
    keep_a = min(len(a), max(room - len(b), -(-room // 2)))
    keep_b = room - keep_a
    start_a = rng.binomial(len(a) - keep_a, 0.5) if rng else 0
    start_b = rng.binomial(len(b) - keep_b, 0.5) if rng else 0
    return a[start_a : start_a + keep_a], b[start_b : start_b + keep_b]


class Rows(Sequence):
    """Random access to the prepared rows of one split: `rows[i]` is [4 + T] integers.

    Attributes:
      manifest: how they were made.
      parts: the number of rows of each corpus; they come one after the other.
      weights: how often a batch takes from each, in proportion; None takes each row as often as any other.

    Raises:
      UserError: if the folder holds no finished rows.
    """

    def __init__(self, folder: pathlib.Path, split: str, exponent: float = 1.0):
        """`exponent` is that of `prepare.TextConfig`."""
        from array_record.python import array_record_data_source

        self.manifest = read_manifest(folder)
        self.parts: list[int] = self.manifest['parts'][split]
        self.weights = None if exponent == 1 else [n**exponent if n else 0.0 for n in self.parts]
        files = [str(folder / f) for f in self.manifest['files'][split]]
        missing = [f for f in files if not pathlib.Path(f).is_file()]
        if missing:
            raise UserError(
                f'{missing[0]!r} is missing from the prepared rows: delete {str(folder)!r} and prepare again.'
            )
        self._dtype = np.dtype(self.manifest['dtype'])
        try:
            self._source = array_record_data_source.ArrayRecordDataSource(files) if files else []
        except Exception as e:
            raise UserError(f'The rows in {str(folder)!r} are damaged: delete them and prepare again.') from e

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        try:
            record = self._source[index % len(self)]
        except Exception as e:
            raise UserError(
                f'Row {index} cannot be read ({str(e)[:100]}): the rows are damaged, prepare them again.'
            ) from e
        return np.frombuffer(record, self._dtype)


class Interleaved(Sequence):
    """The same rows, the corpora in turn, so that the first so many rows are of all of them in proportion."""

    def __init__(self, rows: Rows):
        self._rows = rows
        places = [(np.arange(n) + 0.5) / n for n in rows.parts if n]
        self._order = np.argsort(np.concatenate([*places, []]), kind='stable')

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[int(self._order[index])]


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a folder of finished rows.

    Raises:
      UserError: if there is none.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(
            f'There are no prepared rows in {str(folder)!r}: run python -m bert_jax.bin.prepare first.'
        )
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as e:
        raise UserError(f'{str(file)!r} is damaged: delete {str(folder)!r} and prepare again.') from e
    if 'parts' not in manifest:
        raise UserError(
            f'The rows in {str(folder)!r} are from an earlier version: delete them and prepare again.'
        )
    return manifest
