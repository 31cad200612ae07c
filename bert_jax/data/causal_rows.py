"""Rows of running text: documents joined and cut for causal language models, one in a row for denoisers, or packed."""

import dataclasses
import heapq
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from bert_jax.core.config import check_range
from bert_jax.data.rows import make_row, max_text_tokens, pack
from bert_jax.data.segmentation import Segmenter
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class JoinedRows:
    """Concatenate documents, each followed by the separator token, and cut them into rows (Brown et al. 2020, section 2.3).

    No token is lost: the last row of a shard is padded.

    Attributes:
      length: T, number of tokens in a row.
    """

    whole_documents: ClassVar[bool] = True
    length: int

    def __post_init__(self) -> None:
        check_range(self, 'data', 2, math.inf, 'length')

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        end = np.array([tokenizer.sep], np.int32)
        remaining = np.zeros(0, np.int32)
        for document in documents:
            remaining = np.concatenate([remaining, *document, end])
            while len(remaining) >= self.length:
                yield make_row(remaining[: self.length], self.length, 0, self.length, tokenizer)
                remaining = remaining[self.length :]
        if len(remaining):
            yield make_row(remaining, len(remaining), 0, self.length, tokenizer)


@dataclasses.dataclass(frozen=True)
class DocumentRows:
    """Cut each document into rows [CLS] text [SEP] that contain no other document.

    Attributes:
      length: T, number of tokens in a row.
    """

    whole_documents: ClassVar[bool] = True
    length: int

    def __post_init__(self) -> None:
        check_range(self, 'data', 4, math.inf, 'length')

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        for text in _cut_documents(documents, self.length, tokenizer):
            yield pack(text, None, 0, self.length, tokenizer)


def _cut_documents(
    documents: list[list[np.ndarray]], length: int, tokenizer: Tokenizer
) -> Iterator[np.ndarray]:
    """Yield the token ids of each document, cut into texts that fit a row of `length` tokens with [CLS] and [SEP]."""
    room = max_text_tokens(length, tokenizer, 1)
    for document in filter(None, documents):
        tokens = np.concatenate(document)
        for start in range(0, len(tokens), room):
            yield tokens[start : start + room]


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Cut documents into texts [CLS] text [SEP] of at most a row, and fill the rows with several of them.

    The longest text comes first, and each goes to the fullest row that has room for it (best fit decreasing). Then the
    texts of the emptiest rows are cut to fill the others. The texts of a row are told apart by their separators, see
    `document_numbers`.

    Attributes:
      length: T, number of tokens in a row.
      segmenter: marks the words in the token ids, see `rows.encode_sentences`; None leaves the ids as they are.
      max_texts: largest number of texts in a row; None is no limit.
    """

    whole_documents: ClassVar[bool] = False
    length: int
    segmenter: Segmenter | None = None
    max_texts: int | None = None

    def __post_init__(self) -> None:
        check_range(self, 'data', 4, math.inf, 'length')

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        pieces = _cut_documents(documents, self.length, tokenizer)
        texts = [np.concatenate([tokenizer.prefix, piece, [tokenizer.sep]]) for piece in pieces]
        for row in self._fill_rows(self._fit_texts(texts), len(tokenizer.prefix)):
            tokens = np.concatenate(row)
            yield make_row(tokens, len(tokens), 0, self.length, tokenizer)

    def _is_open(self, row: list[np.ndarray], room: int) -> bool:
        """Return whether a row with room for `room` tokens takes part of another text."""
        return room > max(2, self.length // 32) and len(row) != self.max_texts

    def _fit_texts(self, texts: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Distribute whole texts over rows; return the texts of each row, with the fullest row first."""
        rows_by_room: list[list[list[np.ndarray]]] = [[] for _ in range(self.length + 1)]
        complete: list[list[np.ndarray]] = []
        for text in sorted(texts, key=len, reverse=True):
            fitting = (room for room in range(len(text), self.length) if rows_by_room[room])
            found = next(fitting, self.length)
            row = [*(rows_by_room[found].pop() if found < self.length else []), text]
            rows = complete if len(row) == self.max_texts else rows_by_room[found - len(text)]
            rows.append(row)
        return complete + [row for rows in rows_by_room for row in rows]

    def _fill_rows(self, rows: list[list[np.ndarray]], prefix: int) -> Iterator[list[np.ndarray]]:
        """Cut the texts of the emptiest rows, so that they fill the other rows; yield the rows.

        Each part of a text begins with the same `prefix` tokens and ends with the same token as the text.
        """
        open_rows: list[tuple[int, int, list[np.ndarray]]] = []  # a heap of (-room, number, row)
        for number, row in enumerate(rows):
            room = self.length - sum(map(len, row))
            if self._is_open(row, room):
                open_rows.append((-room, number, row))
            else:
                yield row
        heapq.heapify(open_rows)
        while open_rows:
            remaining = heapq.heappop(open_rows)[2]
            while remaining and open_rows:
                text, (negative_room, number, row) = remaining.pop(), heapq.heappop(open_rows)
                room = -negative_room
                if len(text) > room:
                    remaining.append(np.concatenate([text[:prefix], text[room - 1 :]]))
                    text = np.concatenate([text[: room - 1], text[-1:]])
                row.append(text)
                room -= len(text)
                if self._is_open(row, room):
                    heapq.heappush(open_rows, (-room, number, row))
                else:
                    yield row
            if remaining:
                yield remaining


def document_numbers(tokens: np.ndarray, length: int, separator: int) -> np.ndarray:
    """Number the documents of a row: [T] integers, counted from 1, and 0 for padding.

    A separator belongs to the document that it ends.
    """
    ends = np.cumsum(tokens == separator)
    numbers = 1 + np.concatenate([[0], ends[:-1]])
    return np.where(np.arange(len(tokens)) < length, numbers, 0).astype(np.int32)
