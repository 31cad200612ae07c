"""Questions with several endings to choose from, as rows of one text and ending each."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import labeled
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, pack, room, truncate_pair
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class ChoiceConfig(DataConfig):
    """A text and its endings.

    Attributes:
      text: the field of the text that all endings go on from.
      start: a field with the beginning of the ending that all share; empty is none (SWAG has one).
      endings: the field with a list of endings, or several fields with one each.
      label: the field with the number of the right one.
    """

    text: str = 'text'
    start: str = ''
    endings: tuple[str, ...] = ('endings',)
    label: str = 'label'


def rows(found: Sequence[Record], data: ChoiceConfig, tokenizer: Tokenizer, with_labels: bool) -> np.ndarray:
    """Tokenizes records.

    Returns:
      [n, K, 4 + T] unsigned integers: a row for each of the K endings, each with the number of the right one.

    Raises:
      UserError: for a missing field, or records of different numbers of endings.
    """
    given = [endings(r, data) for r in found]
    k = len(given[0])
    if odd := [r for r, e in zip(found, given, strict=True) if len(e) != k]:
        raise UserError(f'{odd[0].where} has not {k} endings as the first: mend or remove it.')
    out = np.empty((len(found), k, HEADER + data.length), np.uint32)
    texts = tokenizer.encode([r.text(data.text) for r in found])
    encoded = tokenizer.encode([e for group in given for e in group])
    classes = labeled.Classes(data, [*map(str, range(k))])
    for i, record in enumerate(found):
        label = classes.number(record.get(data.label), record.where) if with_labels else 0
        for j in range(k):
            a, b = truncate_pair(texts[i], encoded[i * k + j], room(data.length, tokenizer, 2))
            out[i, j] = pack(a, b, label, data.length, tokenizer)
    return out


def endings(record: Record, data: Any) -> list[str]:
    """The endings of a record; `data` has `endings` and `start` as a `ChoiceConfig`."""
    given = record.get(data.endings[0])
    one = len(data.endings) == 1
    whole = (
        isinstance(given, Iterable) and not isinstance(given, str) and len([*given]) > 1 and None not in given
    )
    if one and not whole:
        raise UserError(
            f'{record.where} has no two endings or more in {data.endings[0]!r}: mend or remove it.'
        )
    texts = [str(e) for e in given] if one else [record.text(f) for f in data.endings]
    start = record.text(data.start) if data.start else ''
    return [f'{start} {text}'.strip() for text in texts]
