"""Rows: fixed-length training examples, how BERT packs text into them, and how they are stored.

A row is an array [4 + T] of unsigned integers: a header of four numbers, then the padded tokens. The header holds the
number of real tokens, the number of tokens in the first segment, a label and the index of the corpus. `Row` names them.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.core.paths import read_json
from bert_jax.data.segmentation import Segmenter
from bert_jax.data.tokenizer import Tokenizer

HEADER = 4  # length of the header
LABEL = 2  # position of the label in the header
CORPUS = 3  # position of the corpus index in the header
MANIFEST = 'manifest.json'

# A sentence ends with a paragraph, at . ! or ? before a space, optionally with a closing quote between them, or at a
# full-width stop.
_SENTENCE_END = re.compile(r'\n|(?<=[.!?])\s+|(?<=[.!?]["\'”’»)\]])\s+|(?<=[。！？])')


class Row(NamedTuple):
    """The fields of a row.

    Attributes:
      tokens: [T] token ids: [CLS], then one or two segments, each closed by [SEP], then padding.
      length: number of real tokens.
      first_length: number of tokens in the first segment, including [CLS] and [SEP].
      label: class index; in pretraining 1 marks a random or swapped segment, 0 consecutive segments.
      corpus: index of the named corpus that the text is from, otherwise 0.
    """

    tokens: np.ndarray
    length: int
    first_length: int
    label: int
    corpus: int

    def inputs(self) -> dict[str, np.ndarray]:
        """Return the inputs of an encoder, each [T].

        `segments` is 1 in the second segment and 0 elsewhere; `valid` is false for padding.
        """
        index = np.arange(len(self.tokens))
        valid = index < self.length
        return {
            'tokens': self.tokens,
            'segments': ((index >= self.first_length) & valid).astype(np.int32),
            'valid': valid,
        }


def unpack(row: np.ndarray) -> Row:
    """Split an array [4 + T] into the fields of a row."""
    return Row(row[HEADER:].astype(np.int32), *map(int, row[:HEADER]))


def pack(a: np.ndarray, b: np.ndarray | None, label: int, length: int, tokenizer: Tokenizer) -> np.ndarray:
    """Pack [CLS] a [SEP], or [CLS] a [SEP] b [SEP], into a row of `length` tokens.

    The tokenizer determines the special tokens and the separators between the two texts. T5 has no [CLS].
    """
    second: list[Any] = [] if b is None else [tokenizer.separators, b]
    tokens = np.concatenate([tokenizer.prefix, a, *second, [tokenizer.sep]])
    return make_row(tokens, len(tokenizer.prefix) + len(a) + 1, label, length, tokenizer)


def make_row(
    tokens: np.ndarray, first_length: int, label: int, length: int, tokenizer: Tokenizer
) -> np.ndarray:
    """Make a row: the header, then `tokens` padded to `length`. `first_length` and `label` are fields of `Row`."""
    row = np.full(HEADER + length, tokenizer.pad, np.uint32)
    row[:HEADER] = len(tokens), first_length, label, 0
    row[HEADER : HEADER + len(tokens)] = tokens
    return row


def max_text_tokens(length: int, tokenizer: Tokenizer, num_texts: int) -> int:
    """Return how many tokens of one or two texts fit into a row of `length`, next to the special tokens.

    Raises:
      UserError: if fewer than one token of each text fits.
    """
    special = len(tokenizer.prefix) + 1 + (num_texts - 1) * len(tokenizer.separators)
    if length < special + num_texts:
        raise UserError(
            f'data.length={length} leaves no room for text between {special} special tokens. '
            f'Set it to {special + num_texts} or more.'
        )
    return length - special


def split_sentences(paragraphs: Sequence[str]) -> list[str]:
    """Split paragraphs into sentences; the white space between them is dropped."""
    return [s for p in paragraphs for s in _SENTENCE_END.split(p) if s and not s.isspace()]


def encode_sentences(
    documents: Sequence[Sequence[str]], tokenizer: Tokenizer, segmenter: Segmenter | None = None
) -> list[list[np.ndarray]]:
    """Encode whole documents, then cut their tokens after each sentence.

    In byte-level BPE, the white space between two sentences belongs to the tokens of the second one.

    Args:
      documents: paragraphs of each document; line breaks are put between them.
      tokenizer: the tokenizer, with V entries.
      segmenter: finds the words; the ids of tokens that continue the word of the token before them are raised by V.

    Returns:
      For each document the token ids [n] of its sentences. Together they are the tokens of the whole document.
    """
    texts = ['\n'.join(paragraphs) for paragraphs in documents]
    result = []
    for text, (ids, offsets) in zip(texts, tokenizer.encode_with_offsets(texts), strict=True):
        if segmenter:
            ids = ids + len(tokenizer) * segmenter.continues_word(text, ids, offsets, tokenizer)
        ends = [match.start() for match in _SENTENCE_END.finditer(text)]
        sentences = np.split(ids, np.searchsorted(offsets[:, 0], ends))
        result.append([sentence for sentence in sentences if len(sentence)])
    return result


class RowMaker(Protocol):
    """A callable that turns documents into rows for `prepare`; each pretraining task provides one.

    Implementations must be picklable and must not import JAX.

    Attributes:
      length: T, number of tokens in a row.
      whole_documents: whether the tokens of a document arrive in one array, or in one for each sentence.
    """

    length: int
    whole_documents: ClassVar[bool]

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Yield rows [4 + T].

        Args:
          documents: token ids of each document, as a list with one array per sentence. With
            `whole_documents`, the list holds one array for the whole document.
          tokenizer: the tokenizer that encoded them.
          rng: random generator for all random choices.
        """
        ...


@dataclasses.dataclass(frozen=True)
class SegmentRows:
    """Rows of two segments, as for BERT (Devlin et al. 2019, section 3.1 and appendix A.2).

    Sentences are collected until they fill a row and split into two segments at a random sentence boundary. By
    default, the second segment is then replaced by text from another document half of the time. If `documents` has only
    one document, all segments are consecutive.

    Attributes:
      length: T, number of tokens in a row.
      sentence_objective: 'random' is BERT's next-sentence prediction, where label 1 marks a segment from another
        document; 'swap' is ALBERT's sentence-order prediction (Lan et al. 2020), where label 1 marks swapped
        segments; 'none' makes rows of one segment.
      negative_rate: probability of label 1.
      short_sequence_rate: fraction of the documents whose rows aim at a shorter length, one random length for each
        document, as in the original BERT code.
      segmenter: marks the words in the token ids, see `encode_sentences`; None leaves the ids as they are.
    """

    whole_documents: ClassVar[bool] = False
    length: int
    sentence_objective: Literal['random', 'swap', 'none'] = 'random'
    negative_rate: float = 0.5
    short_sequence_rate: float = 0.1
    segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        check_range(self, 'data', 5, math.inf, 'length')
        check_range(self, 'task', 0, 1, 'negative_rate', 'short_sequence_rate')

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        room = max_text_tokens(self.length, tokenizer, 1 if self.sentence_objective == 'none' else 2)
        documents = [_split_long_sentences(d, max(1, room // 2)) for d in documents]
        documents = [d for d in documents if d]
        for i in range(len(documents)):
            for a, b, label in self._segments(documents, i, room, rng):
                a, b = (a[:room], None) if b is None else truncate_pair(a, b, room, rng)
                yield pack(a, b, label, self.length, tokenizer)

    def _segments(
        self, documents: list[list[np.ndarray]], index: int, room: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, int]]:
        """Yield (first segment, second segment or None, label) for each row of one document.

        The rows aim at `room` tokens or at a random smaller number. The segments consist of whole sentences, so they may be longer; the caller truncates
        them.
        """
        document = documents[index]
        is_short = rng.random() < self.short_sequence_rate
        target = int(rng.integers(2, room + 1)) if is_short else room
        has_others = self.sentence_objective == 'random' and len(documents) > 1
        start = 0
        while start < len(document):
            end, size = start, 0
            while end < len(document) and size < target:
                size += len(document[end])
                end += 1
            if self.sentence_objective == 'none':
                if size > target and end - start > 1:  # a sentence that does not fit starts the next row
                    end -= 1
                yield np.concatenate(document[start:end]), None, 0
                start = end
                continue
            middle = start + (int(rng.integers(1, end - start)) if end - start > 1 else 1)
            a = np.concatenate(document[start:middle])
            if has_others and (middle == end or rng.random() < self.negative_rate):
                yield a, _random_segment(documents, index, target - len(a), rng), 1
                start = middle  # the sentences that the random segment replaced start the next row
                continue
            if middle == end:  # a single sentence is split in half
                a, b = np.split(a, [len(a) // 2])
            else:
                b = np.concatenate(document[middle:end])
            start = end
            if len(a):
                is_swapped = self.sentence_objective == 'swap' and rng.random() < self.negative_rate
                yield (b, a, 1) if is_swapped else (a, b, 0)


def _split_long_sentences(sentences: Sequence[np.ndarray], max_tokens: int) -> list[np.ndarray]:
    """Cut sentences into parts of at most `max_tokens`, so that text without full stops is not lost."""
    return [s[i : i + max_tokens] for s in sentences for i in range(0, len(s), max_tokens)]


def _random_segment(
    documents: list[list[np.ndarray]], index: int, target: int, rng: np.random.Generator
) -> np.ndarray:
    """Return about `target` tokens from a random position in a random document other than `index`."""
    other = int(rng.integers(len(documents) - 1))
    document = documents[other + (other >= index)]
    start = int(rng.integers(len(document)))
    end, size = start, 0
    while end < len(document) and (size < target or end == start):
        size += len(document[end])
        end += 1
    return np.concatenate(document[start:end])


def truncate_pair(
    a: np.ndarray, b: np.ndarray, max_tokens: int, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Remove tokens from the longer of two texts until both together have at most `max_tokens`.

    Tokens are removed from the end of a text. With `rng`, each token is removed from the start or the end at random.
    """
    if len(a) + len(b) <= max_tokens:
        return a, b
    # Removing tokens one by one from the longer text equalizes the lengths, then alternates, `b` first.
    keep_a = min(len(a), max(max_tokens - len(b), -(-max_tokens // 2)))
    keep_b = max_tokens - keep_a
    start_a = rng.binomial(len(a) - keep_a, 0.5) if rng else 0
    start_b = rng.binomial(len(b) - keep_b, 0.5) if rng else 0
    return a[start_a : start_a + keep_a], b[start_b : start_b + keep_b]


class Rows(Sequence):
    """Random access to the prepared rows of one split: `rows[i]` is an array [4 + T].

    Attributes:
      manifest: settings and statistics of the prepared rows.
      corpus_sizes: number of rows of each corpus; the corpora are stored one after another.
      weights: relative sampling weight of each corpus; None samples all rows uniformly.
    """

    def __init__(
        self, folder: pathlib.Path, split: str, sampling_exponent: float = 1.0, mix_corpora: bool = False
    ):
        """Open the rows of a split.

        Args:
          folder: output of `prepare.prepare`.
          split: 'train' or 'validation'.
          sampling_exponent: see `prepare.TextConfig`.
          mix_corpora: whether to order the rows so that every prefix contains the corpora in proportion to their sizes.

        Raises:
          UserError: if the folder holds no complete rows.
        """
        from array_record.python import array_record_data_source

        self.manifest = read_manifest(folder)
        self.corpus_sizes: list[int] = self.manifest['corpus_sizes'][split]
        exponent = sampling_exponent
        self.weights = None if exponent == 1 else [n**exponent if n else 0.0 for n in self.corpus_sizes]
        files = [str(folder / f) for f in self.manifest['files'][split]]
        if missing := [f for f in files if not pathlib.Path(f).is_file()]:
            raise UserError(
                f'The file {missing[0]!r} of the prepared rows is missing. '
                f'Delete {str(folder)!r} and prepare the rows again.'
            )
        self._dtype = np.dtype(self.manifest['dtype'])
        self._order: Sequence[int] | np.ndarray = range(sum(self.corpus_sizes))
        if mix_corpora:
            positions = [(np.arange(n) + 0.5) / n for n in self.corpus_sizes if n]
            self._order = np.argsort(np.concatenate([*positions, []]), kind='stable')
        try:
            self._source = array_record_data_source.ArrayRecordDataSource(files) if files else []
        except Exception as e:
            raise UserError(
                f'The rows in {str(folder)!r} are damaged. Delete them and prepare them again.'
            ) from e

    @property
    def corpus_shares(self) -> list[float]:
        """Share of each corpus in the rows that are sampled."""
        weights = self.corpus_sizes if self.weights is None else self.weights
        return [weight / sum(weights) for weight in weights]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        position = int(self._order[index])
        try:
            record = self._source[position]
        except Exception as e:
            raise UserError(
                f'Row {index} cannot be read ({str(e)[:100]}). Delete the prepared rows and prepare them again.'
            ) from e
        return np.frombuffer(record, self._dtype)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """Read the manifest of a folder of prepared rows.

    Raises:
      UserError: if it is missing or damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(
            f'There are no prepared rows in {str(folder)!r}. Run python -m bert_jax.bin.prepare first.'
        )
    try:
        manifest = read_json(file)
        return {**manifest, 'data': manifest['data']}  # missing in rows of earlier versions
    except (ValueError, KeyError) as e:
        raise UserError(
            f'{str(file)!r} is damaged, or of an earlier version. Delete {str(folder)!r} and prepare the rows again.'
        ) from e
