"""Labelled texts for downstream tasks: one or two texts and a class or a number, as rows in memory."""

import dataclasses
import logging
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bert_jax.core.config import nearest, within
from bert_jax.core.errors import UserError
from bert_jax.data import records, sources
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, pack, room, truncate_pair
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the examples of a downstream task come from.

    Attributes:
      source: a TFDS name, or files as a path or glob with `{split}` in it, see `records.read`.
      train_split, eval_split: what to train on and what to score.
      length: T, tokens in a row.
      limit: train on the first so many examples of a fixed random order; 0 takes all.
      fake: read the texts in the fake language of a model of `tasks.bilingual`, whose special tokens are 'shared' or its
        'own', with the positions and the order of the real one; empty reads them as they are.
    """

    source: str = ''
    train_split: str = 'train'
    eval_split: str = 'validation'
    length: int = 128
    limit: int = 0
    fake: Literal['', 'shared', 'own'] = ''

    def __post_init__(self) -> None:
        within(self, 'data', 4, math.inf, 'length')
        within(self, 'data', 0, math.inf, 'limit')


@dataclasses.dataclass(frozen=True)
class LabelledConfig(DataConfig):
    """One or two texts and a label; texts over `length` are cut, the longer of two first.

    Attributes:
      text: the field of the (first) text.
      second: the field of the second text; empty is one text.
      label: the field of the label: a number, or the name of a class.
    """

    text: str = 'text'
    second: str = ''
    label: str = 'label'


def label_names(data: Any, of_each: bool = False) -> tuple[str, ...]:
    """Names of the classes: those of the data set, or the labels that the training split shows.

    Args:
      data: a config with the field `label`.
      of_each: whether the field holds a list, one label a token.
    """
    if own := _own_names(data):
        return own
    found = records.read(data.source, data.train_split)
    labels: list[Any] = [r.fields.get(data.label) for r in found]
    if of_each:
        labels = [tag for tags in labels if tags is not None for tag in tags]
    labels = [_plain(label) for label in labels]
    if odd := [label for label in labels if isinstance(label, list | dict | float) or label == '']:
        raise UserError(
            f'{data.source} has the label {odd[0]!r}: a label is a whole number or a name; '
            'numbers of any kind are for the task regress.'
        )
    seen: set[Any] = {*labels} - {None}
    if not seen:
        raise UserError(f'{data.source} has no field {data.label!r} to classify by: set data.label.')
    if all(_is_integer(label) for label in seen):
        return tuple(map(str, sorted({int(label) for label in seen})))
    return tuple(sorted(map(str, seen)))


def _own_names(data: Any) -> tuple[str, ...]:
    """Names of the classes as a TFDS data set has them; none if it has not, or of files."""
    if records.is_files(data.source) or not data.source:
        return ()
    feature = sources.features(data.source).get(data.label)
    feature = getattr(feature, 'feature', feature)  # of a sequence
    if names := getattr(feature, 'names', None):
        return tuple(names)
    return tuple(map(str, range(getattr(feature, 'num_classes', None) or 0)))


class Classes:
    """What the labels of a data set mean to a model: names, or numbers that may count in another order.

    Args:
      data: a config with the field `label`.
      labels: names of the model's classes, in the order of their numbers.
    """

    def __init__(self, data: Any, labels: Sequence[str]):
        self._numbers = {name: i for i, name in enumerate(labels)}
        own = _own_names(data)
        # Names count, in whatever case; without common names the numbers do, if there are as many.
        plain = {name.lower(): name for name in labels} | {name: name for name in labels}
        found = [plain.get(name, plain.get(name.lower())) for name in own]
        self._own: list[Any] = [] if None in found else found
        if own and not self._own:
            if len(own) != len(labels):
                raise UserError(
                    f'{data.source} has the classes {", ".join(own)}, but the model has {", ".join(labels)}: '
                    'use a model for these classes, or other data.'
                )
            logging.warning('%s: classes are taken by number: %s are %s', data.source, [*own], [*labels])
        self._by_name = records.is_files(data.source)

    def number(self, label: Any, where: str) -> int:
        """The class of a label.

        Raises:
          UserError: for one that is no class, naming its record.
        """
        label = _plain(label)
        if label is None:
            raise UserError(f'{where} has no label: mend or remove it.')
        if str(label) in self._numbers and (self._by_name or not isinstance(label, int)):
            return self._numbers[str(label)]
        if not _is_integer(label) or (self._by_name and any(map(_is_integer, self._numbers))):
            raise UserError(f'{where} has the label {label!r}: {nearest(str(label), self._numbers)}')
        if not 0 <= int(label) < len(self._own or self._numbers):
            last = len(self._numbers) - 1
            raise UserError(
                f'{where} has the label {label}, but there are {len(self._numbers)} classes, 0 to {last}: '
                'mend it, or set task.labels or data.label.'
            )
        return self._numbers[self._own[int(label)]] if self._own else int(label)


def class_numbers(found: Sequence[Record], data: Any, labels: Sequence[str]) -> list[int]:
    """The classes of records."""
    classes = Classes(data, labels)
    return [classes.number(r.get(data.label), r.where) for r in found]


def values(found: Sequence[Record], data: LabelledConfig) -> list[int]:
    """Labels that are real numbers, as the bits of a float32: what `rows.Row.label` holds of them."""
    return [int(np.float32(_real(r, data.label)).view(np.uint32)) for r in found]


def value(bits: int) -> np.float32:
    """The number of a row's label."""
    return np.uint32(bits).view(np.float32)


def _real(record: Record, label: str) -> float:
    value = record.get(label)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= np.finfo(np.float32).max:
        raise UserError(
            f'{record.where} has the label {value!r}, which is no number: mend it, or set data.label.'
        )
    return number


def rows(
    found: Sequence[Record], labels: Sequence[int], data: LabelledConfig, tokenizer: Tokenizer
) -> np.ndarray:
    """Tokenizes records.

    Args:
      found: the records.
      labels: what goes into the label of each row.
      data: names the fields.
      tokenizer: makes the ids.

    Returns:
      [n, 4 + T] unsigned integers, see `rows.Row`.

    Raises:
      UserError: for a missing field or text.
    """
    fields = [data.text, data.second] if data.second else [data.text]
    encoded = [tokenizer.encode([r.text(f) for r in found]) for f in fields]
    most = room(data.length, tokenizer, len(fields))
    if most < len(fields):
        raise UserError(f'Rows of {data.length} tokens have no room for text: set data.length higher.')
    out = np.empty((len(found), HEADER + data.length), np.uint32)
    for i, label in enumerate(labels):
        a, b = encoded[0][i], encoded[1][i] if data.second else None
        a, b = (a[:most], None) if b is None else truncate_pair(a, b, most)
        out[i] = pack(a, b, label, data.length, tokenizer)
    return out


def _plain(label: Any) -> Any:
    """A label without its accidents: 1.0 is 1, and no space is around a name."""
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, int | np.integer) or (isinstance(label, float) and label.is_integer()):
        return int(label)
    return label


def _is_integer(label: Any) -> bool:
    return isinstance(label, int | np.integer) or (
        isinstance(label, str) and bool(re.fullmatch('-?[0-9]+', label))
    )
