"""Records of labeled data, as dicts from a TFDS data set or from files."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError, first_line
from bert_jax.data import sources


class Record(NamedTuple):
    """One example of labeled data.

    Attributes:
      location: origin of the record, such as 'train.csv, line 3,'; error messages start with it.
      fields: values by field name.
    """

    location: str
    fields: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """Return a field, or a part of one.

        The name 'premise.en' means the part 'en' of a nested field, or the language 'en' of a TFDS translation.

        Raises:
          UserError: if the field is missing; names the closest existing one.
        """
        value: Any = self.fields
        for part in name.split('.'):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, Mapping) and part in value.get('language', ()):
                value = value['translation'][[*value['language']].index(part)]
            else:
                known = [*value] if isinstance(value, Mapping) else [*self.fields]
                raise UserError(f'{self.location} has no field {name!r}: {did_you_mean(part, known)}')
        return value

    def text(self, name: str) -> str:
        """Return a text field, with unpaired surrogates replaced.

        Raises:
          UserError: if the field is missing or null.
        """
        value = self.get(name)
        if value is None:
            raise self.error(f'has no text in the field {name!r}')
        # JSON escapes can be unpaired surrogates.
        return str(value).encode('utf-8', 'replace').decode('utf-8')

    def error(self, problem: str) -> UserError:
        """Return the error that names this record and its `problem`, such as 'has an empty text'."""
        return UserError(f'{self.location} {problem}. Correct or remove the record.')


def is_files(source: str) -> bool:
    """Return whether a source is a path or glob of files, not a TFDS name."""
    return source.endswith(FILE_SUFFIXES)


def read(source: str, split: str, limit: int = 0) -> list[Record]:
    """Read the records of one split.

    File formats by suffix:
      .jsonl: one object per line.
      .csv, .tsv: a table with a header line.
      .conllu: CoNLL-U (Universal Dependencies); fields `tokens`, `upos` and `xpos`.
      .conll, .bio, .iob2: one word per line, its tag in the last column; fields `tokens` and `tags`, or only `tokens`
        for sentences with one column. IOB1 tags (CoNLL-2003) become IOB2.
      .json: SQuAD.

    Args:
      source: TFDS name, or path or glob of files. `{split}` in a path stands for the name of the split.
      split: name of the split.
      limit: number of records, chosen at random with a fixed seed; 0 returns all in their original order.

    Raises:
      UserError: if there are no records, or one cannot be read.
    """
    if not source:
        raise UserError(
            'data.source is empty. Set it to a TFDS name, or to files such as data/{split}.jsonl.'
        )
    if is_files(source):
        pattern = source.replace('{split}', split)
        paths = sources.find_files(pattern)
        if not paths:
            raise UserError(f'No file matches {pattern!r}. Set data.source to an existing file or glob.')
        records = [record for path in paths for record in read_file(path)]
    else:
        examples = sources.load_examples(source, split)
        records = [Record(f'example {i} of {source}, split {split!r},', e) for i, e in enumerate(examples)]
    if not records:
        raise UserError(f'{source}, split {split!r}, has no examples. Check data.source and its splits.')
    if limit:
        records = [records[i] for i in np.random.default_rng(0).permutation(len(records))[:limit]]
    return records


def _raise_error(problem: str) -> None:
    raise UserError(problem)


def read_file(path: str, on_error: Callable[[str], None] = _raise_error) -> Iterator[Record]:
    """Yield the records of one file.

    Args:
      path: file with one of `FILE_SUFFIXES`; see `read`.
      on_error: function called with a message for each invalid record. If it returns, the record is skipped.
    """
    csv.field_size_limit(sys.maxsize)
    reader = _READERS[os.path.splitext(path)[1]]
    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
        for place, fields in reader(file, path):
            if isinstance(fields, _Invalid):
                on_error(f'{path}, {place} {fields.problem}')
            else:
                yield Record(f'{path}, {place},', fields)


class _Invalid(NamedTuple):
    """A placeholder for a record that cannot be read.

    Attributes:
      problem: error message without the location of the record, which precedes it.
    """

    problem: str


_LocatedFields = Iterator[tuple[str, Mapping[str, Any] | _Invalid]]
_NOT_UTF8 = _Invalid('is not UTF-8 text. Convert the file to UTF-8.')


def _is_utf8(text: str) -> bool:
    """Return whether a text decoded with `surrogateescape` came from valid UTF-8."""
    return not any('\udc80' <= c <= '\udcff' for c in text)


def _read_json_lines(file: TextIO, path: str) -> _LocatedFields:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f'line {number}', _parse_json(line) if _is_utf8(line) else _NOT_UTF8


def _parse_json(line: str) -> Mapping[str, Any] | _Invalid:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as e:  # ValueError also for numbers with too many digits
        return _Invalid(f'is not JSON ({first_line(e)}). Write one JSON object per line.')
    if not isinstance(value, dict):
        return _Invalid('is not a JSON object. Write {"text": ..., "label": ...} on each line.')
    return value


def _read_table(file: TextIO, path: str) -> _LocatedFields:
    """Read a `.csv` or `.tsv` file, whose header line names the fields."""
    options: Any = {'delimiter': '\t', 'quoting': csv.QUOTE_NONE} if path.endswith('.tsv') else {}
    reader = csv.DictReader(file, restkey='', **options)
    try:
        if not _is_utf8(''.join(reader.fieldnames or ())):
            raise UserError(f'{path!r} is not UTF-8 text. Convert the file to UTF-8.')
        for row in reader:
            is_valid = all(_is_utf8(str(value)) for value in row.values())
            yield f'line {reader.line_num}', row if is_valid else _NOT_UTF8
    except csv.Error as e:
        raise UserError(
            f'{path!r}, line {reader.line_num} is not a valid table row ({e}). Correct or remove the line.'
        ) from e


def _read_conll(file: TextIO, path: str) -> _LocatedFields:
    """Read sentences with one word per line and its tag in the last column; a blank line ends a sentence."""
    for start, lines in _sentences(file, ('-DOCSTART-', '# id ')):
        rows = [(n, [c for c in line.split('\t' if '\t' in line else ' ') if c]) for n, line in lines]
        tokens, tags = [columns[0] for _, columns in rows], [columns[-1] for _, columns in rows]
        untagged = [n for n, columns in rows if len(columns) == 1]
        if not _is_utf8(''.join(tokens + tags)):
            yield f'line {start}', _NOT_UTF8
        elif not untagged:
            yield f'line {start}', {'tokens': tokens, 'tags': _to_iob2(tags)}
        elif len(untagged) == len(rows):
            yield f'line {start}', {'tokens': tokens}
        else:
            yield f'line {untagged[0]}', _Invalid('has one column. Write a word and its tag on each line.')


def _read_conllu(file: TextIO, path: str) -> _LocatedFields:
    """Read sentences of a CoNLL-U file (Universal Dependencies); a blank line ends a sentence."""
    for start, lines in _sentences(file, ('#',)):
        rows = [(n, line.split('\t')) for n, line in lines]
        if invalid := [(n, columns) for n, columns in rows if len(columns) != 10]:
            number, columns = invalid[0]
            problem = f'has {len(columns)} columns. A .conllu file has 10, separated by tabs.'
            yield f'line {number}', _Invalid(problem)
            continue
        # Ids such as 1-2 mark contractions, whose words follow; ids such as 2.1 mark words missing from the text.
        words = [(columns[1], columns[3], columns[4]) for _, columns in rows if columns[0].isdigit()]
        if not _is_utf8(''.join(word for word, _, _ in words)):
            yield f'line {start}', _NOT_UTF8
        elif words:
            fields = map(list, zip(*words, strict=True))
            yield f'line {start}', dict(zip(('tokens', 'upos', 'xpos'), fields, strict=True))


def _sentences(file: Iterable[str], comments: tuple[str, ...]) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Yield the number of the first line of each sentence, and its numbered lines without comments."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate([*file, ''], 1):
        line = line.rstrip('\r\n')
        if line.strip():
            if not line.startswith(comments):
                lines.append((number, line))
        elif lines:
            yield lines[0][0], lines
            lines = []


def _to_iob2(tags: Sequence[str]) -> list[str]:
    """Convert IOB1 tags to IOB2.

    In IOB1, an entity starts with B- only if it directly follows one of the same type. In IOB2, every entity does. Tags
    that are already IOB2 do not change. If a sentence has any tag other than O, B-X and I-X, all its tags stay the same.
    """
    if not all(tag == 'O' or tag.startswith(('B-', 'I-')) for tag in tags):
        return [*tags]
    previous = ['O', *tags]
    return [
        f'B-{tag[2:]}' if tag.startswith('I-') and previous[i][2:] != tag[2:] else tag
        for i, tag in enumerate(tags)
    ]


def _read_squad(file: TextIO, path: str) -> _LocatedFields:
    """Read the questions of a file in the SQuAD format, which XQuAD, MLQA and DRCD also use."""
    text = file.read()
    if not _is_utf8(text):
        raise UserError(f'{path!r} is not UTF-8 text. Convert the file to UTF-8.')
    try:
        paragraphs = [p for article in json.loads(text)['data'] for p in article['paragraphs']]
        questions = [(paragraph, question) for paragraph in paragraphs for question in paragraph['qas']]
    except (ValueError, RecursionError, KeyError, TypeError) as e:
        raise UserError(
            f'{path!r} is not in the SQuAD format ({type(e).__name__}: {first_line(e)}). '
            'Write it as {"data": [{"paragraphs": [{"context": ..., "qas": [...]}]}]}.'
        ) from e
    for number, (paragraph, question) in enumerate(questions, 1):
        try:
            fields = {k: question[k] for k in ('id', 'question')} | {'context': paragraph['context']}
            answers = [] if question.get('is_impossible') else question.get('answers')
            if answers is not None:
                fields['answers'] = {k: [a[k] for a in answers] for k in ('text', 'answer_start')}
        except (KeyError, TypeError, AttributeError) as e:
            problem = f'is not in the SQuAD format ({type(e).__name__}: {e}). Correct or remove the question.'
            yield f'question {number}', _Invalid(problem)
        else:
            yield f'question {fields["id"]}', fields | {'id': str(fields['id'])}


_READERS: Mapping[str, Callable[[TextIO, str], _LocatedFields]] = {
    '.jsonl': _read_json_lines,
    '.csv': _read_table,
    '.tsv': _read_table,
    '.json': _read_squad,
    '.conllu': _read_conllu,
    '.conll': _read_conll,
    '.bio': _read_conll,
    '.iob2': _read_conll,
}
FILE_SUFFIXES = tuple(_READERS)
