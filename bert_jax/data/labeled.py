"""Labeled texts for downstream tasks: one or two texts and a class or a number, as rows in memory."""

import dataclasses
import logging
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bert_jax.core.config import check_range, did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data import records as records_lib
from bert_jax.data import sources
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, max_text_tokens, pack, truncate_pair
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a downstream task.

    Attributes:
      source: TFDS name, or path or glob of files with `{split}` in it; see `records.read`.
      train_split: split to train on.
      eval_split: split to evaluate on.
      length: tokens in a row, T.
      limit: number of training examples, chosen at random with a fixed seed; 0 uses all.
      fake_language: special tokens of the fake language into which texts are translated, for models of `tasks.bilingual`:
        'shared' with the real language or 'separate'. Position ids and word order stay those of the real language. Empty
        leaves texts in the real language.
    """

    source: str = ''
    train_split: str = 'train'
    eval_split: str = 'validation'
    length: int = 128
    limit: int = 0
    fake_language: Literal['', 'shared', 'separate'] = ''

    def __post_init__(self) -> None:
        check_range(self, 'data', 4, math.inf, 'length')
        check_range(self, 'data', 0, math.inf, 'limit')


@dataclasses.dataclass(frozen=True)
class LabeledConfig(DataConfig):
    """One or two texts and a label. Texts longer than `length` are truncated, the longer of a pair first.

    Attributes:
      text: field of the first text.
      text_pair: field of the second text; empty for single texts.
      label: field of the label: a number or the name of a class.
    """

    text: str = 'text'
    text_pair: str = ''
    label: str = 'label'


def label_names(data: Any, per_token: bool = False) -> tuple[str, ...]:
    """Return the class names: those in the metadata of the data set, or else the labels in its training split.

    Args:
      data: config with the fields `source`, `train_split` and `label`.
      per_token: whether the label field holds a list with one label per token.

    Raises:
      UserError: if the training split has no labels, or labels that cannot be classes.
    """
    if names := _dataset_label_names(data):
        return names
    records = records_lib.read(data.source, data.train_split)
    labels: list[Any] = [record.fields.get(data.label) for record in records]
    if per_token:
        labels = [tag for tags in labels if tags is not None for tag in tags]
    labels = [_normalize_label(label) for label in labels]
    if invalid := [label for label in labels if isinstance(label, list | dict | float) or label == '']:
        raise UserError(
            f'{data.source} has the label {invalid[0]!r}, which is neither a whole number nor a name. '
            'Use the task regress to predict real numbers.'
        )
    unique: set[Any] = {*labels} - {None}
    if not unique:
        known = {key for record in records for key in record.fields}
        raise UserError(
            f'{data.source} has no field {data.label!r}. Set data.label to the field of the labels: '
            f'{did_you_mean(data.label, known)}'
        )
    if all(_is_integer(label) for label in unique):
        return tuple(map(str, sorted({int(label) for label in unique})))
    return tuple(sorted(map(str, unique)))


def _dataset_label_names(data: Any) -> tuple[str, ...]:
    """Return the class names in the metadata of a TFDS data set; empty if it has none, or for files."""
    if records_lib.is_files(data.source) or not data.source:
        return ()
    feature = sources.load_features(data.source).get(data.label)
    feature = getattr(feature, 'feature', feature)  # the elements of a tfds.features.Sequence
    if names := getattr(feature, 'names', None):
        return tuple(names)
    return tuple(map(str, range(getattr(feature, 'num_classes', None) or 0)))


class LabelMap:
    """A mapping from the labels of a data set, names or numbers, to the class ids of a model.

    The class names in the metadata of a data set are matched to those of the model, ignoring case. If any of
    them has no match, all classes are matched by number, provided that both have equally many.

    Args:
      data: config with the fields `source` and `label`.
      labels: names of the model's classes, in the order of their ids.

    Raises:
      UserError: if a class name has no match and the numbers of classes differ.
    """

    def __init__(self, data: Any, labels: Sequence[str]):
        self._ids = {name: i for i, name in enumerate(labels)}
        dataset_names = _dataset_label_names(data)
        by_spelling = {name.lower(): i for name, i in self._ids.items()} | self._ids
        matches = [by_spelling.get(name, by_spelling.get(name.lower())) for name in dataset_names]
        # The class id of each class number in the data.
        self._class_ids: list[Any] = [*range(len(self._ids))] if None in matches or not matches else matches
        if None in matches:
            if len(dataset_names) != len(labels):
                raise UserError(
                    f'{data.source} has the classes {", ".join(dataset_names)}, but the model has {", ".join(labels)}. '
                    'Use a model with these classes, or another data set.'
                )
            logging.warning(
                '%s has the classes %s, but the model has %s. '
                'Classes are matched by number, so check their order.',
                data.source,
                [*dataset_names],
                [*labels],
            )
        self._is_from_files = records_lib.is_files(data.source)

    def class_id(self, label: Any, location: str) -> int:
        """Return the class id of a label.

        Args:
          label: name or number of a class.
          location: location of the record, for messages.

        Raises:
          UserError: if the label is not a class.
        """
        label = _normalize_label(label)
        if label is None:
            raise UserError(f'{location} has no label. Add one, or remove the record.')
        if str(label) in self._ids and (self._is_from_files or not isinstance(label, int)):
            return self._ids[str(label)]
        if not _is_integer(label) or (self._is_from_files and any(map(_is_integer, self._ids))):
            raise UserError(
                f'{location} has the unknown label {label!r}: {did_you_mean(str(label), self._ids)} '
                'Correct the label or set task.labels.'
            )
        n = len(self._class_ids)
        if not 0 <= int(label) < n:
            raise UserError(
                f'{location} has the label {label}, but there are {n} classes, 0 to {n - 1}. '
                'Correct the label, or set task.labels or data.label.'
            )
        return self._class_ids[int(label)]


def class_ids(records: Sequence[Record], data: Any, labels: Sequence[str]) -> list[int]:
    """Return the class id of each record; see `LabelMap`."""
    label_map = LabelMap(data, labels)
    return [label_map.class_id(record.get(data.label), record.location) for record in records]


def encode_floats(records: Sequence[Record], data: LabeledConfig) -> list[int]:
    """Return the real-valued label of each record as the bits of a float32, which `rows.Row.label` stores."""
    return [int(np.float32(_real_label(record, data.label)).view(np.uint32)) for record in records]


def decode_float(bits: int) -> np.float32:
    """Return the real-valued label that `encode_floats` stored."""
    return np.uint32(bits).view(np.float32)


def _real_label(record: Record, field: str) -> float:
    value = record.get(field)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= np.finfo(np.float32).max:
        raise UserError(
            f'{record.location} has the label {value!r}, which is not a number. Correct the label, or set data.label.'
        )
    return number


def make_rows(
    records: Sequence[Record], labels: Sequence[int], data: LabeledConfig, tokenizer: Tokenizer
) -> np.ndarray:
    """Tokenize the texts of records.

    Args:
      records: n records.
      labels: label of each row, as an unsigned integer.
      data: config that names the text fields.
      tokenizer: tokenizer of the model.

    Returns:
      [n, 4 + T] unsigned integers; see `rows.Row`.

    Raises:
      UserError: if a field or a text is missing.
    """
    fields = [data.text, data.text_pair] if data.text_pair else [data.text]
    encoded = [tokenizer.encode([record.text(field) for record in records]) for field in fields]
    capacity = max_text_tokens(data.length, tokenizer, len(fields))
    rows = np.empty((len(records), HEADER + data.length), np.uint32)
    for i, label in enumerate(labels):
        a, b = encoded[0][i], encoded[1][i] if data.text_pair else None
        a, b = (a[:capacity], None) if b is None else truncate_pair(a, b, capacity)
        rows[i] = pack(a, b, label, data.length, tokenizer)
    return rows


def _normalize_label(label: Any) -> Any:
    """Convert a whole-number float label to an integer, and strip spaces around a string label."""
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, int | np.integer) or (isinstance(label, float) and label.is_integer()):
        return int(label)
    return label


def _is_integer(label: Any) -> bool:
    """Return whether a normalized label is an integer, or a name that consists of digits."""
    return bool(re.fullmatch('-?[0-9]+', str(label)))
