"""Sentences with one label per word, as rows that carry each label at the first subword of its word.

A sentence becomes one or more rows of [2, 4 + T]: the token ids as in `rows.Row`, and the labels with a copy of the
header. The label of a word is stored at its first subword as its class id plus 1; other positions hold 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import labeled
from bert_jax.data.formats.common import log_once
from bert_jax.data.labeled import ClassesConfig, LabelMap
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, max_text_tokens, pack
from bert_jax.data.text_checks import warn_of_unknown
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class TaggingConfig(ClassesConfig):
    """Words and their labels. A sentence longer than `length` is split into several rows.

    Attributes:
      tokens: field of the list of words.
      label: field of the list of labels, numbers or names.
    """

    tokens: str = 'tokens'
    label: str = 'tags'


class Sentence(NamedTuple):
    """The words of a sentence and their positions in the rows.

    Attributes:
      words: words before tokenization.
      positions: [n, 2], for each word the row of its first subword and the position of that subword in the row.
    """

    words: Sequence[str]
    positions: np.ndarray


def make_rows(
    records: Sequence[Record],
    data: TaggingConfig,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    with_labels: bool,
) -> tuple[np.ndarray, list[Sentence]]:
    """Tokenize sentences and align the labels of their words.

    Args:
      records: one sentence each.
      data: config that names the fields.
      labels: names of the classes, in the order of their ids.
      tokenizer: tokenizer of the model.
      with_labels: whether to read the labels; otherwise every word has class 0.

    Returns:
      [n, 2, 4 + T] unsigned integers: the token ids and the labels of n rows, each after a header of 4 numbers (see
      the module docstring); and a `Sentence` for each record.

    Raises:
      UserError: if a field is missing, or a sentence has a different number of words and labels.
    """
    if with_labels:
        labeled.check_label_fields(records, data.label)
    label_map = labeled.LabelMap(data, labels) if with_labels else None
    capacity = max_text_tokens(data.length, tokenizer, 1)
    rows: list[np.ndarray] = []
    sentences = []
    encoded: list[np.ndarray] = []
    for record in records:
        if label_map is not None:
            words = record.texts(data.tokens, 'words', 'data.tokens')
            tags = read_class_ids(record, words, data, labels, label_map)
        else:
            words = _read_unlabeled_words(record, data.tokens)
            tags = [0] * len(words)
        subwords = [
            s if len(s) else np.array([tokenizer.unk], np.int32) for s in tokenizer.encode_words(words)
        ]
        encoded += subwords
        positions = np.zeros((len(words), 2), np.int32)
        for window in _split_words([len(s) for s in subwords], capacity):
            row = np.zeros((2, HEADER + data.length), np.uint32)
            tokens = np.concatenate([subwords[i] for i in window])[:capacity]
            row[0] = pack(tokens, None, 0, data.length, tokenizer)
            row[1, :HEADER] = row[0, :HEADER]
            starts = len(tokenizer.prefix) + np.cumsum([0, *(len(subwords[i]) for i in window[:-1])])
            row[1, HEADER + starts] = [tags[i] + 1 for i in window]
            positions[window] = np.stack([np.full(len(window), len(rows)), starts], 1)
            rows.append(row)
        sentences.append(Sentence(words, positions))
    if not rows:
        raise UserError(f'{data.source} has no words. Check data.source and data.tokens.')
    warn_of_unknown(records, encoded, tokenizer)
    return np.stack(rows), sentences


def read_class_ids(
    record: Record, words: Sequence[str], data: TaggingConfig, labels: Sequence[str], label_map: LabelMap
) -> list[int]:
    """Return the class id of each word; `labels` are the names of the classes.

    Raises:
      UserError: if the field is missing, its length differs from the number of words, or a label is unknown.
    """
    values = labeled.read_tags(record, data.label, labels)
    if len(values) != len(words):
        fields = f'{len(words)} words in {data.tokens!r} but {len(values)} labels in {data.label!r}'
        raise record.error(f'has {fields}')
    return [label_map.class_id(value, record.location) for value in values]


def _read_unlabeled_words(record: Record, field: str) -> list[str]:
    """Return the words of a list, or of a text that is split at spaces."""
    value = record.get(field, 'data.tokens')
    is_printed_list = isinstance(value, str) and value[:1] == '[' and value[-1:] == ']'  # as in some tables
    if isinstance(value, str) and not is_printed_list:
        log_once(
            f'The field {field!r} is text, so it is split into words at spaces. Separate punctuation by spaces if the '
            'training data does.'
        )
        words = record.text(field).split()
    else:
        words = record.texts(field, 'words', 'data.tokens')
    if not words:
        raise record.error('has no words')
    return words


def _split_words(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Group consecutive words into rows, as many as fit; a word longer than a row gets a row to itself.

    Args:
      sizes: subwords of each word.
      capacity: subwords that fit into a row.

    Returns:
      The indices of the words in each row.
    """
    windows: list[list[int]] = []
    used = capacity
    for i, size in enumerate(sizes):
        if used + size > capacity:
            windows.append([])
            used = 0
        windows[-1].append(i)
        used += size
    return windows
