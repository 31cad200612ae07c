"""Labelled texts for downstream tasks: one or two texts and a class, as rows in memory."""

import csv
import dataclasses
import glob
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax.core.config import nearest, within
from bert_jax.core.errors import UserError
from bert_jax.data import sources
from bert_jax.data.rows import HEADER, pack, truncate_pair
from bert_jax.data.tokenizer import Tokenizer

_FILES = ('.jsonl', '.csv', '.tsv')


@dataclasses.dataclass(frozen=True)
class LabelledConfig:
    """Where labelled texts come from.

    Attributes:
      source: a TFDS name, or files as a path or glob with `{split}` in it: `.jsonl`, or `.csv` and
        `.tsv` with a header line.
      train_split, eval_split: what to train on and what to score.
      text: the field of the (first) text.
      second: the field of the second text; empty is one text.
      label: the field of the class: an integer, or a name.
      length: T, tokens in a row; longer texts are cut, the longer of two first.
      limit: train on the first so many examples of a fixed random order; 0 takes all.
    """

    source: str = ''
    train_split: str = 'train'
    eval_split: str = 'validation'
    text: str = 'text'
    second: str = ''
    label: str = 'label'
    length: int = 128
    limit: int = 0

    def __post_init__(self) -> None:
        within(self, 'data', 4, math.inf, 'length')
        within(self, 'data', 0, math.inf, 'limit')


def label_names(data: LabelledConfig) -> tuple[str, ...]:
    """Names of the classes: those of the data set, or the labels that the training split shows."""
    if not _is_files(data.source):
        feature = sources.features(data.source).get(data.label)
        if feature is not None and getattr(feature, 'names', None):
            return tuple(feature.names)
        if feature is not None and getattr(feature, 'num_classes', None):
            return tuple(map(str, range(feature.num_classes)))
    examples = list(_examples(data, data.train_split))
    if not examples:
        raise UserError(
            f'{data.source}, split {data.train_split!r}, has no examples: check data.source and its splits.'
        )
    labels = [e.get(data.label) for e in examples]
    if odd := [label for label in labels if isinstance(label, list | dict)]:
        raise UserError(f'{data.source} has the label {odd[0]!r}: a label is a number or a name.')
    seen: set[Any] = {*labels} - {None}
    if not seen:
        raise UserError(f'{data.source} has no field {data.label!r} to classify by: set data.label.')
    if all(_is_integer(label) for label in seen):
        return tuple(map(str, sorted({int(label) for label in seen})))
    return tuple(sorted(map(str, seen)))


def rows(
    data: LabelledConfig, split: str, labels: Sequence[str], tokenizer: Tokenizer, limit: int = 0
) -> np.ndarray:
    """Reads and tokenizes one split.

    Args:
      data: the source.
      split: which part.
      labels: names of the classes, in the order of their numbers.
      tokenizer: makes the ids.
      limit: only so many examples, chosen by a fixed random order; 0 is all, in the data's order.

    Returns:
      [n, 3 + T] unsigned integers, see `rows.Row`; the label is the class.

    Raises:
      UserError: for a missing field, an empty split, or a label that is no class.
    """
    examples = list(enumerate(_examples(data, split)))
    if not examples:
        raise UserError(f'{data.source}, split {split!r}, has no examples: check data.source and its splits.')
    if limit:
        order = np.random.default_rng(0).permutation(len(examples))[:limit]
        examples = [examples[i] for i in order]
    fields = [data.text, data.second] if data.second else [data.text]
    for field in [*fields, data.label]:
        if field not in examples[0][1]:
            raise UserError(f'{data.source} has no field {field!r}: {nearest(field, examples[0][1])}')
    where = f'of {data.source}, split {split!r},'
    encoded = [tokenizer.encode([_text(e, f, f'example {i} {where}') for i, e in examples]) for f in fields]
    numbers = {name: i for i, name in enumerate(labels)}
    room = data.length - 1 - len(fields)
    if room < len(fields):
        raise UserError(f'Rows of {data.length} tokens have no room for text: set data.length higher.')
    out = np.empty((len(examples), HEADER + data.length), np.uint32)
    for row, (i, example) in enumerate(examples):
        label = _number(example.get(data.label), numbers, _is_files(data.source), f'example {i} {where}')
        a, b = encoded[0][row], encoded[1][row] if data.second else None
        a, b = (a[:room], None) if b is None else truncate_pair(a, b, room)
        out[row] = pack(a, b, label, data.length, tokenizer)
    return out


def _text(example: dict[str, Any], field: str, where: str) -> str:
    value = example.get(field)
    if value is None:
        raise UserError(f'{where} has no text in the field {field!r}: mend or remove it.')
    return str(value).encode('utf-8', 'replace').decode('utf-8')  # JSON may hold half a surrogate pair


def _number(label: Any, numbers: dict[str, int], by_name: bool, where: str) -> int:
    """The class of a label: a name, or a number; a number counts as a name first if `by_name`."""
    if str(label) in numbers and (by_name or not isinstance(label, int | np.integer)):
        return numbers[str(label)]
    if _is_integer(label):
        if not 0 <= int(label) < len(numbers):
            last = len(numbers) - 1
            raise UserError(
                f'{where} has the label {label}, but there are {len(numbers)} classes, 0 to {last}: '
                'mend it, or set task.labels or data.label.'
            )
        return int(label)
    raise UserError(f'{where} has the label {label!r}: {nearest(str(label), numbers)}')


def _is_integer(label: Any) -> bool:
    return isinstance(label, int | np.integer) or (
        isinstance(label, str) and bool(re.fullmatch('-?[0-9]+', label))
    )


def _is_files(source: str) -> bool:
    return source.endswith(_FILES)


def _examples(data: LabelledConfig, split: str) -> Iterator[dict[str, Any]]:
    if not data.source:
        raise UserError('data.source is empty: name a TFDS data set, or files such as data/{split}.jsonl.')
    if not _is_files(data.source):
        yield from sources.examples(data.source, split)
        return
    if '{split}' not in data.source:
        raise UserError(
            f'data.source={data.source!r} would train and evaluate on the same examples: put {{split}} into '
            'the path, and name files after data.train_split and data.eval_split.'
        )
    found = glob.glob(os.path.expanduser(data.source.replace('{split}', split)))
    paths = sorted(p for p in found if os.path.isfile(p))
    if not paths:
        raise UserError(
            f'No file matches {data.source.replace("{split}", split)!r}: set data.source to a path with {{split}} in it.'
        )
    csv.field_size_limit(sys.maxsize)
    for path in paths:
        with open(path, encoding='utf-8-sig', newline='') as file:
            try:
                if path.endswith('.jsonl'):
                    yield from (
                        _json(line, f'{path}, line {n}') for n, line in enumerate(file, 1) if line.strip()
                    )
                elif path.endswith('.tsv'):
                    yield from csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE, restkey='')
                else:
                    yield from csv.DictReader(file, restkey='')
            except UnicodeDecodeError as e:
                raise UserError(f'{path!r} is not UTF-8 text: convert it.') from e


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as e:
        raise UserError(f'{where} is not JSON ({e.msg}): a .jsonl file has one object a line.') from e
    if not isinstance(value, dict):
        raise UserError(f'{where} is not a JSON object: write {{"text": ..., "label": ...}} on each line.')
    return value
