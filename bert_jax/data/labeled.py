"""Labeled texts for downstream tasks: one or two texts and a class or a number, as rows in memory."""

import dataclasses
import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from bert_jax.core.config import check_range, did_you_mean, list_names
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats, tfds_data
from bert_jax.data import records as records_lib
from bert_jax.data.formats import parquet
from bert_jax.data.formats.conll import ENTITY_TAG
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, max_text_tokens, pack, truncate_pair
from bert_jax.data.sequences import KmerTokenizer
from bert_jax.data.text_checks import warn_of_unknown
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a downstream task.

    Attributes:
      source: TFDS name, or path or glob of files with `{split}` in it; see `records.read`.
      train_split: split to train on.
      eval_split: split to evaluate on.
      allow_overlap: whether the two splits may share examples, to see whether a model can fit its training examples.
      length: tokens in a row, T.
      limit: number of training examples, chosen at random with a fixed seed; 0 uses all.
      fake_language: for models of `tasks.bilingual`, translates the texts into the fake language, with special tokens
        that are 'shared' with the real language or 'separate'. Position ids and word order stay those of the real
        language. Empty, the default, leaves the texts in the real language.
    """

    source: str = ''
    train_split: str = 'train'
    eval_split: str = 'validation'
    allow_overlap: bool = False
    length: int = 128
    limit: int = 0
    fake_language: Literal['', 'shared', 'separate'] = ''

    def __post_init__(self) -> None:
        check_range(self, 'data', 4, math.inf, 'length')
        check_range(self, 'data', 0, math.inf, 'limit')

    def settings_for_length(self, length: int) -> dict[str, int]:
        """Return the settings to change so that rows have `length` tokens."""
        return {'length': length}

    def read(self, split: str, limit: int = 0) -> list[Record]:
        """Read the records of a split of `source`; see `records.read`."""
        return records_lib.read(self.source, split, limit)

    def check_splits(self) -> None:
        """Check that training and evaluation use different examples, unless `allow_overlap` is set.

        Raises:
          UserError: if there is no source, if both splits share examples, or if they have a file with the same content.
        """
        records_lib.check_source(self.source)
        if self.allow_overlap:
            return
        splits = self.train_split, self.eval_split
        if records_lib.splits_overlap(self.source, *splits):
            raise UserError(
                f'data.train_split={splits[0]!r} and data.eval_split={splits[1]!r} of {self.source!r} would train and '
                'evaluate on the same examples. Set different splits (in a path, {split} stands for the name of the '
                'split), or data.allow_overlap=true.'
            )
        if copies := records_lib.find_copy(self.source, *splits):
            raise UserError(
                f'{copies[1]!r} is a copy of {copies[0]!r}, so the model would be evaluated on its training examples. '
                'Replace one of the files, or set data.allow_overlap=true.'
            )


@dataclasses.dataclass(frozen=True)
class ClassesConfig(DataConfig):
    """The data of a task that predicts classes.

    Attributes:
      label_names: names of the classes in the order of their numbers, if the labels are the numbers 0, 1, 2 and so on;
        empty takes the names from the data.
    """

    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({*self.label_names}) < len(self.label_names):
            raise UserError(f'data.label_names={self.label_names} repeats a name. List each class once.')


@dataclasses.dataclass(frozen=True)
class LabeledConfig(ClassesConfig):
    """One or two texts and a label. Texts longer than `length` are truncated, the longer of a pair first.

    Attributes:
      text: field of the first text.
      text_pair: field of the second text; empty for single texts.
      label: field of the label: a number or the name of a class.
    """

    text: str = 'text'
    text_pair: str = ''
    label: str = 'label'

    @property
    def text_fields(self) -> Mapping[str, str]:
        """Fields of the texts, by the keys that name them."""
        return {'text': self.text} | ({'text_pair': self.text_pair} if self.text_pair else {})


def label_names(data: Any, per_token: bool = False) -> tuple[str, ...]:
    """Return the class names: those in `data.label_names` or the metadata of the data set, or else in its training split.

    Names are sorted, and so are numbers.

    Args:
      data: config with the fields `source`, `train_split` and `label`.
      per_token: whether the label field holds a list with one label per token.

    Raises:
      UserError: if the training split has no labels, or labels that cannot be classes.
    """
    if names := _numbered_names(data) or _parquet_label_names(data):
        return names
    records = records_lib.read(data.source, data.train_split)
    check_label_fields(records, data.label)
    locations: dict[str, Record] = {}  # the first record of each class
    number = None  # the first record whose label is a number of JSON
    unlabeled = 0
    are_real = False
    for record in records:
        labels = read_tags(record, data.label) if per_token else [record.get(data.label, 'data.label')]
        for label in labels:
            name = class_name(label, record.location)
            locations.setdefault(name, record)
            number = number or (record if _is_number(label) else None)
            unlabeled += name == '-1'
            are_real |= isinstance(label, float | np.floating) or (isinstance(label, str) and '.' in label)
    names = tuple(locations)
    if not names:
        raise UserError(
            f'{data.source} has no labels in the field {data.label!r}. Set data.label to another.'
        )
    if not per_token and len(names) > max(20, len(records) / 2):
        raise UserError(
            f'{data.source} has {len(names):,} different labels in the field {data.label!r} of {len(records):,} examples: '
            f'{list_names([repr(name[:40]) for name in names], limit=5)}. '
            'Set data.label to a field of classes, or list all classes in task.labels.'
        )
    if all(map(_is_integer, names)):
        names = tuple(sorted(names, key=int))
        if {'-1', '0'} <= {*names}:
            raise UserError(
                f'{locations["-1"].location} has the label -1, which usually marks unlabeled data. '
                f'There are {unlabeled:,} labels -1 in total. Remove these records, or set task.labels={names}.'
            )
        if are_real:
            logging.warning(
                'The labels of %s are real numbers, such as 1.0, and become %d classes. To predict a number, use the task '
                'regress.',
                data.source,
                len(names),
            )
        return names
    if number is not None:
        example = next(name for name in names if not _is_integer(name))
        raise UserError(
            f'{number.location} has a number as its label, but {locations[example].location} has the name {example!r}. '
            'Write either the names or the numbers of classes as labels.'
        )
    _warn_of_similar(names)
    return tuple(sorted(names))


def _warn_of_similar(names: Sequence[str]) -> None:
    by_spelling: dict[str, str] = {}
    for name in names:
        if (other := by_spelling.setdefault(name.casefold(), name)) != name:
            logging.warning('The classes %r and %r differ only in case.', other, name)


def _numbered_names(data: Any) -> tuple[str, ...]:
    """Return the names of numbered classes: those in the config or the metadata of a TFDS data set; empty without them."""
    if isinstance(data, ClassesConfig) and data.label_names:
        return data.label_names
    if formats.is_path(data.source) or not data.source:
        return ()
    feature = tfds_data.load_features(data.source).get(data.label)
    feature = getattr(feature, 'feature', feature)  # the elements of a tfds.features.Sequence
    if names := getattr(feature, 'names', None):
        return tuple(names)
    return tuple(map(str, range(getattr(feature, 'num_classes', None) or 0)))


def _parquet_label_names(data: Any) -> tuple[str, ...]:
    """Return the class names in the metadata of the Parquet files of the training split; empty for other data.

    The reader of Parquet has replaced the numbers by these names.
    """
    if not data.source or not formats.is_path(data.source):
        return ()
    path = records_lib.find_files(data.source, data.train_split)[0]
    return parquet.class_names(path, data.label) if files.split_suffix(path) == ('.parquet', '') else ()


def read_tags(record: Record, field: str, classes: Sequence[str] = ()) -> list[Any]:
    """Return the labels of the words of a record.

    If all of them are entity tags, they become IOB2, in which each entity starts with B-. In IOB1, it does so only
    directly after one of the same type. BIOES and BILOU mark its last word with E- or L-, and a single word with S- or
    U-; they are kept if the classes of the model have such names.

    Raises:
      UserError: if the field is missing or is not a list.
    """
    tags = record.values(field, 'one label per word', 'data.label')
    keeps_scheme = any(name[:2] in ('S-', 'U-', 'E-', 'L-') for name in classes)
    if keeps_scheme or not all(isinstance(tag, str) and ENTITY_TAG.fullmatch(tag) for tag in tags):
        return tags
    tags = [_IOB2_PREFIXES.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    previous = ['O', *tags]
    return [
        f'B-{tag[2:]}' if tag.startswith('I-') and previous[i][2:] != tag[2:] else tag
        for i, tag in enumerate(tags)
    ]


_IOB2_PREFIXES = {'S': 'B', 'U': 'B', 'E': 'I', 'L': 'I'}


class LabelMap:
    """A mapping from the labels of a data set, names or numbers, to the class ids of a model.

    A label matches the model's class of the same name. If there is none, it matches a class whose
    name differs only in case, unless several do. Numbers whose names are known, from
    `data.label_names` or the metadata of a data set, match by these names. If one of these names
    has no match, all numbers are used as class ids, provided that the data set and the model have
    the same number of classes.

    Args:
      data: config with the fields `source` and `label`.
      labels: names of the model's classes, in the order of their ids.

    Raises:
      UserError: if a class name has no match and the numbers of classes differ.
    """

    def __init__(self, data: Any, labels: Sequence[str]):
        self._ids = {name: i for i, name in enumerate(labels)}
        spellings = [name.casefold() for name in labels]
        unique = {s: i for i, s in enumerate(spellings) if spellings.count(s) == 1}
        self._by_spelling = unique | self._ids
        self._can_name_numbers = isinstance(data, ClassesConfig)
        names = _numbered_names(data)
        matches = [self._find(name) for name in names]
        # The class id of each class number in the data; None if the numbers have no names.
        self._class_ids: Any = matches or None
        if not matches and are_placeholders(labels):
            self._class_ids = [*range(len(labels))]
        if None in matches:
            if len(names) != len(labels):
                raise UserError(
                    f'{data.source} has the classes {", ".join(names)}, but the model has {", ".join(labels)}. '
                    'Use a model with these classes, or another data set.'
                )
            self._class_ids = [*range(len(labels))]
            logging.warning(
                '%s has the classes %s, but the model has %s. '
                'Classes are matched by number, so check their order.',
                data.source,
                [*names],
                [*labels],
            )

    def _find(self, name: str) -> int | None:
        return self._by_spelling.get(name, self._by_spelling.get(name.casefold()))

    def class_id(self, label: Any, location: str) -> int:
        """Return the class id of a label.

        Args:
          label: name or number of a class.
          location: location of the record, for messages.

        Raises:
          UserError: if the label is not a class.
        """
        name = class_name(label, location)
        if self._class_ids is not None and _is_integer(name):
            n = len(self._class_ids)
            if not 0 <= int(name) < n:
                raise UserError(
                    f'{location} has the label {name}, but there are {n} classes, 0 to {n - 1}. '
                    'Correct the label, or set task.labels or data.label.'
                )
            return self._class_ids[int(name)]
        # The labels true and false also match classes named 1 and 0.
        numbers = {'true': '1', 'false': '0'} if isinstance(label, bool | np.bool_) else {}
        found = next((i for n in (name, numbers.get(name, name)) if (i := self._find(n)) is not None), None)
        if found is not None:
            return found
        if _is_integer(name) and not any(map(_is_integer, self._ids)):
            cure = 'Set data.label_names to the names of 0, 1 and so on, in this order.'
            if not self._can_name_numbers:
                cure = 'Write names as labels.'
            raise UserError(
                f'{location} has the number {name} as its label, but the classes have the names {", ".join(self._ids)}. '
                f'{cure}'
            )
        shown = name if _is_number(label) else repr(label)
        hint = did_you_mean(name, self._ids, similarity=0.75)  # a class that is hardly similar is no advice
        raise UserError(
            f'{location} has the unknown label {shown}: {hint} Correct the label or set task.labels.'
        )


def are_placeholders(names: Sequence[str]) -> bool:
    """Return whether class names are LABEL_0, LABEL_1 and so on, which models without class names have."""
    return all(re.fullmatch('LABEL_[0-9]+', name) for name in names)


def class_name(label: Any, location: str) -> str:
    """Return the name of the class that a label denotes; numbers of equal value have the same name.

    Args:
      label: text, whole number or boolean. Text such as '2.0' is a number; '007' is not.
      location: location of the record, for messages.

    Raises:
      UserError: if the label is missing or cannot be a class.
    """
    if label is None or (isinstance(label, str) and not label.strip()):
        raise UserError(f'{location} has no label. Add one, or remove the record.')
    if isinstance(label, bool | np.bool_):
        return 'true' if label else 'false'
    if isinstance(label, str):
        name = label.strip()
        if not (number := _NUMBER_OF_CLASS.fullmatch(name)):
            return name
        if not number[2]:
            return '0' if name == '-0' else name
        if float(name).is_integer():
            return f'{int(float(name))}'
    if _is_number(label) and label == label // 1:
        return f'{int(label)}'
    raise UserError(
        f'{location} has {records_lib.describe(label)} as its label, neither a whole number nor a name. '
        'Correct the label, or use the task regress to predict real numbers.'
    )


# The whole part, and the fraction with its exponent: 2, 2.0, .5 and 2.000e+00, but not 007 or 2e5.
_NUMBER_OF_CLASS = re.compile(r'-?(0|[1-9][0-9]*|(?=\.))(\.[0-9]+(?:[eE][-+]?[0-9]+)?)?')


def _is_number(label: Any) -> bool:
    return isinstance(label, int | float | np.number) and not isinstance(label, bool)


def _is_integer(name: str) -> bool:
    """Return whether the name of a class is a whole number."""
    return bool(re.fullmatch('-?(0|[1-9][0-9]*)', name))


def check_label_fields(records: Sequence[Record], field: str) -> None:
    """Check that all records have the label field if the first one has it.

    Without it in the first record, the name of the field is probably wrong, which reading it reports.

    Raises:
      UserError: if a record lacks the field.
    """
    for i, record in enumerate(records):
        try:
            record.get(field)
        except UserError as e:
            if i == 0:
                return
            raise UserError(
                f'{record.location} has no label in the field {field!r}, unlike those before it. '
                'Add one, or remove the record.'
            ) from e


def class_ids(records: Sequence[Record], data: Any, labels: Sequence[str]) -> list[int]:
    """Return the class id of each record; see `LabelMap`."""
    check_label_fields(records, data.label)
    label_map = LabelMap(data, labels)
    return [label_map.class_id(record.get(data.label, 'data.label'), record.location) for record in records]


def encode_floats(records: Sequence[Record], data: LabeledConfig) -> list[int]:
    """Return the real-valued label of each record as the bits of a float32, which `rows.Row.label` stores.

    Raises:
      UserError: if a label is not a finite number.
    """
    if data.label_names:
        raise UserError(f'data.label_names={data.label_names} has no effect on real numbers. Remove it.')
    check_label_fields(records, data.label)
    return [int(np.float32(_real_label(record, data.label)).view(np.uint32)) for record in records]


def decode_float(bits: int) -> np.float32:
    """Return the real-valued label that `encode_floats` stored."""
    return np.uint32(bits).view(np.float32)


def _real_label(record: Record, field: str) -> float:
    value = record.get(field, 'data.label')
    is_number = _is_number(value) or (isinstance(value, str) and _REAL_NUMBER.fullmatch(value.strip()))
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not abs(number) <= float(np.finfo(np.float32).max):
        raise UserError(
            f'{record.location} has {records_lib.describe(value)} as its label, not a finite number such as 3.8. '
            'Correct the label, or set data.label.'
        )
    return number


_REAL_NUMBER = re.compile(r'[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?')


def make_rows(
    records: Sequence[Record],
    labels: Sequence[int],
    data: LabeledConfig,
    tokenizer: Tokenizer,
    unit: str = 'examples',
) -> np.ndarray:
    """Tokenize the texts of records, log how many of them are truncated, and warn of many unknown tokens.

    Args:
      records: n records.
      labels: label of each row, as an unsigned integer.
      data: config that names the text fields.
      tokenizer: tokenizer of the model.
      unit: what the log calls the records.

    Returns:
      [n, 4 + T] unsigned integers; see `rows.Row`.

    Raises:
      UserError: if a field or a text is missing.
    """
    fields = data.text_fields.items()
    encoded = [tokenizer.encode([r.text(field, f'data.{key}') for r in records]) for key, field in fields]
    if not isinstance(tokenizer, KmerTokenizer):  # the task dna reports unknown k-mers
        warn_of_unknown(records, itertools.chain(*encoded), tokenizer)
    capacity = max_text_tokens(data.length, tokenizer, len(fields))
    num_truncated = sum(sum(map(len, texts)) > capacity for texts in zip(*encoded, strict=True))
    # After a bad record, `predict` retries the others in pairs with the first; those would repeat the log.
    if num_truncated and len(records) > 2:
        logging.info(
            '%d of %d %s are truncated to data.length=%d tokens',
            num_truncated, len(records), unit, data.length,
        )  # fmt: skip
    rows = np.empty((len(records), HEADER + data.length), np.uint32)
    for i, label in enumerate(labels):
        a, b = encoded[0][i], encoded[1][i] if data.text_pair else None
        a, b = (a[:capacity], None) if b is None else truncate_pair(a, b, capacity)
        rows[i] = pack(a, b, label, data.length, tokenizer)
    return rows
