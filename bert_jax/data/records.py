"""Records of labeled data, as dicts from a TFDS data set or from files."""

import filecmp
import fnmatch
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats, tfds_data


class Record(NamedTuple):
    """One example of labeled data.

    Attributes:
      location: origin of the record, such as 'train.csv, line 3,'; error messages start with it.
      fields: values by field name.
      field_hint: sentence that ends the message about a missing field.
    """

    location: str
    fields: Mapping[str, Any]
    field_hint: str = ''

    def get(self, name: str, setting: str = '') -> Any:
        """Return a field, or a part of one.

        Args:
          name: name of the field. 'premise.en' means the part 'en' of a nested field, or the language 'en' of a TFDS
            translation.
          setting: config key that holds the name, for the message.

        Raises:
          UserError: if the field is missing; lists the existing ones with their types, the closest first.
        """
        if name in self.fields:
            return self.fields[name]
        value: Any = self.fields
        for part in name.split('.'):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, Mapping) and part in value.get('language', ()):
                value = value['translation'][[*value['language']].index(part)]
            else:
                known, kinds = _list_fields(value if isinstance(value, Mapping) else self.fields)
                hint = did_you_mean(part, known, kinds=kinds)
                hints = [hint, self.field_hint, setting and f'Set {setting}.']
                raise UserError(f'{self.location} has no field {name!r}: {" ".join(filter(None, hints))}')
        return value

    def text(self, name: str, setting: str = '') -> str:
        """Return a text field, with unpaired surrogates replaced. The arguments are those of `get`.

        Raises:
          UserError: if the field is missing or is not text.
        """
        value = self.get(name, setting)
        if not isinstance(value, str):
            raise self._type_error(name, value, 'text')
        return _replace_surrogates(value)

    def values(self, name: str, entries: str = 'entries', setting: str = '') -> list[Any]:
        """Return a list field.

        Args:
          name: see `get`.
          entries: what the list holds, for the message.
          setting: see `get`.

        Raises:
          UserError: if the field is missing or is not a list.
        """
        value = self.get(name, setting)
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise self._type_error(name, value, f'a list of {entries}')
        return [*value]

    def texts(self, name: str, entries: str = 'texts', setting: str = '') -> list[str]:
        """Return a field that is a list of texts; see `values` and `text`."""
        values = self.values(name, entries, setting)
        for value in values:
            if not isinstance(value, str):
                raise self._type_error(name, value, 'text', f'the list {name!r}')
        return [*map(_replace_surrogates, values)]

    def error(self, problem: str) -> UserError:
        """Return the error that names this record and its `problem`, such as 'has an empty text'."""
        return UserError(f'{self.location} {problem}. Correct or remove the record.')

    def _type_error(self, name: str, value: Any, expected: str, where: str = '') -> UserError:
        """Return the error for a `value` where something of another type is expected."""
        cure = 'Correct the record, or name another field in the config.'
        if isinstance(value, str):
            cure = 'Write a list such as ["New", "York"], in a .jsonl file.'
        elif isinstance(value, Mapping) and value:
            cure = f'Name a part of it in the config, such as {f"{name}.{next(iter(value))}"!r}.'
        return UserError(
            f'{self.location} has {describe(value)} in {where or f"the field {name!r}"}, where {expected} belongs. {cure}'
        )


def describe(value: Any) -> str:
    """Describe the type of a value and the value itself, in the words of JSON, for messages."""
    if value is None:
        return 'null'
    if isinstance(value, bool | np.bool_):
        return 'true' if value else 'false'
    short = repr(value) if len(repr(value)) <= 60 else f'{repr(value)[:57]}...'
    if isinstance(value, int | float | np.number):
        return f'the number {value}'
    return f'{"the" if isinstance(value, Iterable) else "a"} {_kind(value)} {short}'


def _kind(value: Any) -> str:
    """Return the type of a value in the words of JSON."""
    if value is None:
        return 'null'
    kinds = (
        (str, 'text'),
        (bool | np.bool_, 'true or false'),
        (int | float | np.number, 'number'),
        (Mapping, 'object'),
        (Iterable, 'list'),
    )
    return next((words for cls, words in kinds if isinstance(value, cls)), type(value).__name__)


def _list_fields(fields: Mapping[str, Any]) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the names of the fields of a record, and their types unless all have the same.

    Args:
      fields: values by field name, or a translation of TFDS, whose languages are its fields.
    """
    kinds = {name: _kind(value) for name, value in fields.items()}
    if kinds == {'language': 'list', 'translation': 'list'}:
        return fields['language'], {}
    return [*fields], kinds if len({*kinds.values()}) > 1 else {}


def _replace_surrogates(text: str) -> str:
    """Replace unpaired surrogates with '?'. JSON can contain them as escape sequences."""
    return text.encode('utf-8', 'replace').decode('utf-8')


def read(source: str, split: str, limit: int = 0) -> list[Record]:
    """Read the records of one split.

    File formats by suffix, in any case, also compressed (.gz, .bz2, .xz, .zst):
      .jsonl: one object per line.
      .json: SQuAD, a list of objects, or one object per line.
      .csv, .tsv: a table with a header line.
      .parquet: a table as Hugging Face `datasets` writes it.
      .conllu, .conllup, .cupt: CoNLL-U (Universal Dependencies); fields `tokens`, `upos`, `xpos` and other columns.
      .conll, .bio, .bioes, .iob, .iob2: one word per line, its tag in the last column; fields `tokens` and `tags`, or only
        `tokens` for sentences with one column; see `formats.conll`.
      .txt: one text per line, without labels; field `text`. A glob that also finds other formats leaves it out.

    Args:
      source: TFDS name, or path or glob of files. `{split}` in a path stands for the name of the split.
      split: name of the split.
      limit: number of records, chosen at random with a fixed seed; 0 returns all in their original order.

    Raises:
      UserError: if there are no records, or one cannot be read.
    """
    check_source(source)
    if formats.is_path(source):
        records = [record for path in find_files(source, split) for record in read_file(path)]
    else:
        examples = tfds_data.load_examples(source, split)
        records = [Record(f'example {i} of {source}, split {split!r},', e) for i, e in enumerate(examples)]
    if not records:
        raise UserError(
            f'{describe_source(source, split)} has no examples. Check data.source and its splits.'
        )
    return choose(records, limit)


def choose(records: list[Record], limit: int) -> list[Record]:
    """Return `limit` records, chosen at random with a fixed seed; 0 returns all in their order."""
    if not limit:
        return records
    return [records[i] for i in np.random.default_rng(0).permutation(len(records))[:limit]]


def check_source(source: str) -> None:
    """Raise UserError if a source is empty."""
    if not source:
        raise UserError(
            "data.source is empty. Set it to a TFDS name such as 'glue/sst2', or to files such as 'data/{split}.csv'."
        )


def splits_overlap(source: str, a: str, b: str) -> bool:
    """Return whether two splits of files or of a TFDS data set certainly share examples."""
    if not formats.is_path(source):
        return tfds_data.splits_overlap(a, b, source)
    first, second = (source.replace('{split}', split) for split in (a, b))
    found = files.find_files(first)  # reading reports a missing file
    return bool(found) and (first == second or not {*found}.isdisjoint(files.find_files(second)))


def find_copy(source: str, a: str, b: str) -> tuple[str, str] | None:
    """Return a file of the split `a` and one of the split `b` with the same content; None if there are none."""
    if not formats.is_path(source):
        return None
    found = (files.find_files(source.replace('{split}', split)) for split in (a, b))
    sizes = ({path: os.path.getsize(path) for path in paths if os.path.isfile(path)} for paths in found)
    for (path, size), (other, other_size) in itertools.product(*(s.items() for s in sizes)):
        if size == other_size > 0 and filecmp.cmp(path, other, shallow=False):
            return path, other
    return None


def describe_source(source: str, split: str) -> str:
    """Return the name of the data of a split: its path, or the names of the data set and the split."""
    if formats.is_path(source):
        return source.replace('{split}', split)
    return ', '.join(filter(None, (source, split)))


def used_split(source: str, split: str) -> str:
    """Return the name of a split if the source depends on it; a path without `{split}` has none."""
    return split if '{split}' in source or not formats.is_path(source) else ''


def find_files(source: str, split: str) -> list[str]:
    """Return the sorted files of one split.

    If any of them has a suffix in `formats.LABELED_SUFFIXES`, return only the files with such a suffix.

    Args:
      source: path or glob; see `read`.
      split: name of the split.

    Raises:
      UserError: if the split has no files.
    """
    pattern = source.replace('{split}', split)
    if not (found := files.find_files(pattern)):
        raise UserError(_not_found_message(source, split))
    return [path for path in found if files.split_suffix(path)[0] in formats.LABELED_SUFFIXES] or found


def _not_found_message(source: str, split: str) -> str:
    """Return the error for a split without files, which names the splits that have files."""
    pattern = source.replace('{split}', split)
    if files.is_folder(pattern):
        example = f'{pattern.rstrip("/")}/{{split}}.jsonl'
        return f'{pattern!r} is a folder. Set data.source to the files in it, such as {example!r}.'
    if splits := _other_splits(source):
        return (
            f'No file matches {pattern!r}, but there are files of the splits {", ".join(splits)}. '
            'Set data.train_split or data.eval_split to one of them.'
        )
    return f'{files.not_found_message(pattern, formats.LABELED_SUFFIXES)} Set data.source to an existing file or glob.'


def _other_splits(source: str) -> list[str]:
    """Return the names that `{split}` can have in a path so that a file exists."""
    before, placeholder, after = os.path.expanduser(source).partition('{split}')
    if not placeholder:
        return []
    name = re.compile(f'{re.escape(before)}([^/]+?){fnmatch.translate(after)}')
    return sorted({match[1] for path in files.find_files(f'{before}*{after}') if (match := name.match(path))})


def _raise_error(problem: str) -> None:
    raise UserError(problem)


def read_file(path: str, on_error: Callable[[str], None] = _raise_error) -> Iterator[Record]:
    """Yield the records of one file.

    Args:
      path: file with one of `formats.SUFFIXES`; see `read`.
      on_error: function called with a message for each invalid record. If it returns, the record is skipped.

    Raises:
      UserError: if the format is unknown, or the file as a whole cannot be read.
    """
    suffix, _ = files.split_suffix(path)
    if suffix not in formats.SUFFIXES:
        raise UserError(
            f'{path!r} has an unknown format. Use a file with one of the suffixes {", ".join(formats.SUFFIXES)}.'
        )
    hint = f'The first line of a {suffix} file names its fields.' if suffix in ('.csv', '.tsv') else ''
    with files.open_binary(path) as (stream, _):
        for place, fields in formats.read(stream, path):
            if isinstance(fields, formats.Invalid):
                on_error(f'{path}, {place} {fields.problem}')
            else:
                yield Record(f'{path}, {place},', fields, hint)
