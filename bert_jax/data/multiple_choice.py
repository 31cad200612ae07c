"""Multiple-choice questions: each ending becomes one row, together with the text that it continues."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import labeled
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record, describe
from bert_jax.data.rows import HEADER, max_text_tokens, pack, truncate_pair
from bert_jax.data.text_checks import warn_of_unknown
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class ChoiceConfig(DataConfig):
    """A text and its possible endings.

    Attributes:
      text: field of the text that the endings continue.
      ending_prefix: field of the first words of all endings, such as sent2 of SWAG; empty if they share none.
      endings: field that holds a list of endings, or several fields that hold one each.
      label: field of the number of the correct ending.
    """

    text: str = 'text'
    ending_prefix: str = ''
    endings: tuple[str, ...] = ('endings',)
    label: str = 'label'


def make_rows(
    records: Sequence[Record], data: ChoiceConfig, tokenizer: Tokenizer, with_labels: bool
) -> np.ndarray:
    """Tokenize each text with each of its endings.

    Args:
      records: n records.
      data: config that names the fields.
      tokenizer: tokenizer of the model.
      with_labels: whether to read the number of the correct ending; otherwise it is 0.

    Returns:
      [n, K, 4 + T] unsigned integers: one row for each of the K endings, labeled with the number of the correct one.

    Raises:
      UserError: if a field is missing or the records differ in their number of endings.
    """
    endings = [read_endings(record, data) for record in records]
    k = len(endings[0])
    for record, own in zip(records, endings, strict=True):
        if len(own) != k:
            raise record.error(f'has {len(own)} endings, but the first record has {k}')
    rows = np.empty((len(records), k, HEADER + data.length), np.uint32)
    texts = tokenizer.encode([record.text(data.text, 'data.text') for record in records])
    encoded = tokenizer.encode([ending for own in endings for ending in own])
    warn_of_unknown(records, [*texts, *encoded], tokenizer)
    labels = labeled.class_ids(records, data, [*map(str, range(k))]) if with_labels else [0] * len(records)
    for i, label in enumerate(labels):
        for j in range(k):
            a, b = truncate_pair(texts[i], encoded[i * k + j], max_text_tokens(data.length, tokenizer, 2))
            rows[i, j] = pack(a, b, label, data.length, tokenizer)
    return rows


def read_label(record: Record, data: ChoiceConfig) -> int:
    """Return the number of the correct ending, counted from 0.

    Raises:
      UserError: if a field is missing, or the label is not the number of an ending.
    """
    numbers = [*map(str, range(len(read_endings(record, data))))]
    return labeled.class_ids([record], data, numbers)[0]


def read_endings(record: Record, data: Any) -> list[str]:
    """Return the endings of a record, each with its prefix.

    Args:
      record: the record.
      data: config with the fields `endings` and `ending_prefix` of a `ChoiceConfig`.

    Raises:
      UserError: if a field is missing or holds fewer than two endings.
    """
    if len(data.endings) == 1:
        field = data.endings[0]
        if isinstance(value := record.get(field, 'data.endings'), str):
            raise UserError(
                f'{record.location} has {describe(value)} in the field {field!r}, where a list of endings belongs. '
                'Set data.endings to one field for each ending, such as data.endings=a,b, or write a list in a .jsonl file.'
            )
        endings = record.texts(field, 'endings')
        if len(endings) < 2:
            raise record.error(f'does not have two or more endings in the field {field!r}')
    else:
        endings = [record.text(field, 'data.endings') for field in data.endings]
    prefix = record.text(data.ending_prefix, 'data.ending_prefix') if data.ending_prefix else ''
    return [f'{prefix} {ending}'.strip() for ending in endings]
