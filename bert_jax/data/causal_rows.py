"""Rows of running text: of documents joined and cut, for causal language models, or of one each, for denoisers."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.rows import HEADER, pack, room
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class JoinedRows:
    """Documents one after the other, each with the separator at its end, cut into rows (Brown et al. 2020, section 2.3).

    No token is lost: the last row of a shard is padded.

    Attributes:
      length: T, tokens in a row.
    """

    whole: ClassVar[bool] = True
    length: int

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UserError(f'Rows of {self.length} tokens predict nothing: set data.length to 2 or more.')

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        end = np.array([tokenizer.sep], np.int32)
        left = np.zeros(0, np.int32)
        for document in documents:
            left = np.concatenate([left, *document, end])
            whole = len(left) // self.length * self.length
            for start in range(0, whole, self.length):
                yield self._row(left[start : start + self.length], tokenizer)
            left = left[whole:]
        if len(left):
            yield self._row(left, tokenizer)

    def _row(self, tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
        row = np.full(HEADER + self.length, tokenizer.pad, np.uint32)
        row[:HEADER] = len(tokens), len(tokens), 0, 0
        row[HEADER : HEADER + len(tokens)] = tokens
        return row


@dataclasses.dataclass(frozen=True)
class DocumentRows:
    """Documents cut into rows of their own: [CLS], the text, [SEP].

    Attributes:
      length: T, tokens in a row.
    """

    whole: ClassVar[bool] = True
    length: int

    def __post_init__(self) -> None:
        if self.length < 4:
            raise UserError(
                f'Rows of {self.length} tokens have no room for text: set data.length to 4 or more.'
            )

    def __call__(
        self, documents: list[list[np.ndarray]], tokenizer: Tokenizer, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        most = room(self.length, tokenizer, 1)
        for document in documents:
            text = np.concatenate(document)
            for start in range(0, len(text), most):
                yield pack(text[start : start + most], None, 0, self.length, tokenizer)


def documents_of(tokens: np.ndarray, length: int, separator: int) -> np.ndarray:
    """The number of the document that each token of a row belongs to, from 1, and 0 for padding: [T] integers.

    A separator belongs to the document that it ends.
    """
    ends = np.cumsum(tokens == separator)
    numbers = 1 + np.concatenate([[0], ends[:-1]])
    return np.where(np.arange(len(tokens)) < length, numbers, 0).astype(np.int32)
