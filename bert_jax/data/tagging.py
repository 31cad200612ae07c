"""Sentences with a label for each word, as rows whose first word pieces carry the labels.

A row is [2, 4 + T]: the tokens as in `rows.Row`, and beside them, under a copy of its header, the number of
the label plus one at the first piece of each word and 0 elsewhere.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import labeled
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, pack
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class TaggedConfig(DataConfig):
    """Words and their labels; a sentence that does not fit into `length` goes on in further rows.

    Attributes:
      tokens: the field of the words.
      label: the field of their labels: numbers or names.
    """

    tokens: str = 'tokens'
    label: str = 'tags'


class Sentence(NamedTuple):
    """Where the words of a sentence are.

    Attributes:
      words: as they are written.
      places: [n, 2], for each word the row and the position of its first piece.
    """

    words: Sequence[str]
    places: np.ndarray


def rows(
    found: Sequence[Record],
    data: TaggedConfig,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    with_labels: bool,
) -> tuple[np.ndarray, list[Sentence]]:
    """Rows of sentences, and where each word is.

    Returns:
      [n, 2, 4 + T] unsigned integers, and a `Sentence` for each record.

    Raises:
      UserError: for a missing field, or as many labels as there are not words.
    """
    classes = labeled.Classes(data, labels)
    out: list[np.ndarray] = []
    sentences = []
    for record in found:
        words = [str(w) for w in _list(record, data.tokens)]
        if not words and not with_labels:
            raise UserError(f'{record.where} has no words: there is nothing to tag.')
        tags = [0] * len(words)
        if with_labels:
            given = _list(record, data.label)
            if len(given) != len(words):
                raise UserError(
                    f'{record.where} has {len(words)} words but {len(given)} labels: mend or remove it.'
                )
            tags = [classes.number(t, record.where) for t in given]
        pieces = [p if len(p) else np.array([tokenizer.unk], np.int32) for p in tokenizer.encode(words)]
        places = np.zeros((len(words), 2), np.int32)
        for window in _windows([len(p) for p in pieces], data.length - 2):
            row = np.zeros((2, HEADER + data.length), np.uint32)
            inside = np.concatenate([pieces[i] for i in window])[: data.length - 2]
            row[0] = pack(inside, None, 0, data.length, tokenizer)
            row[1, :HEADER] = row[0, :HEADER]
            starts = 1 + np.cumsum([0, *(len(pieces[i]) for i in window[:-1])])
            row[1, HEADER + starts] = [tags[i] + 1 for i in window]
            places[window] = np.stack([np.full(len(window), len(out)), starts], 1)
            out.append(row)
        sentences.append(Sentence(words, places))
    if not out:
        raise UserError(f'{data.source} has no words: check data.source and data.tokens.')
    return np.stack(out), sentences


def _list(record: Record, field: str) -> list[Any]:
    value = record.get(field)
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise UserError(
            f'{record.where} has {str(value)[:40]!r} in the field {field!r}: make it a list, an entry a word.'
        )
    if None in (entries := [*value]):
        raise UserError(
            f'{record.where} has an entry that is nothing in the field {field!r}: mend or remove it.'
        )
    return entries


def _windows(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Words in rows, in order, as many as fit; one that is longer than a row has a row of its own."""
    windows: list[list[int]] = []
    used = room
    for i, size in enumerate(sizes):
        if used + size > room:
            windows.append([])
            used = 0
        windows[-1].append(i)
        used += size
    return windows
