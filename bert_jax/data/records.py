"""Records of labelled data: dicts, from a TFDS data set or from files of one's own."""

import csv
import glob
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError, first_line
from bert_jax.data import sources


class Record(NamedTuple):
    """One example of labelled data.

    Attributes:
      where: its place, for messages.
      fields: its values by name.
    """

    where: str
    fields: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """A field; 'premise.en' is a part of one, or a language of a translation.

        Raises:
          UserError: if there is none, naming the nearest.
        """
        value: Any = self.fields
        for part in name.split('.'):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, Mapping) and part in value.get('language', ()):
                value = value['translation'][[*value['language']].index(part)]
            else:
                known = [*value] if isinstance(value, Mapping) else [*self.fields]
                raise UserError(f'{self.where} has no field {name!r}: {nearest(part, known)}')
        return value

    def text(self, name: str) -> str:
        """A field that is a text, as Unicode that can be encoded."""
        value = self.get(name)
        if value is None:
            raise UserError(f'{self.where} has no text in the field {name!r}: mend or remove it.')
        return str(value).encode('utf-8', 'replace').decode('utf-8')  # JSON may hold half a surrogate pair


def is_files(source: str) -> bool:
    return source.endswith(FORMATS)


def read(source: str, split: str, limit: int = 0) -> list[Record]:
    """The records of one split.

    Args:
      source: a TFDS name, or a path or glob, with `{split}` in it if there are several. `.jsonl`, `.csv` and
        `.tsv` (these with a header line) name their fields; `.conllu` gives `tokens`, `upos` and `xpos`; `.conll`,
        `.bio` and `.iob2` give `tokens` and, from the last column, `tags`, those of entities as IOB2 (CoNLL-2003
        is IOB1), or `tokens` alone for sentences of one column; `.json` is the format of SQuAD.
      split: which.
      limit: only so many, chosen by a fixed random order; 0 is all, in their own.

    Raises:
      UserError: if there is nothing, or it cannot be read.
    """
    if not source:
        raise UserError('data.source is empty: name a TFDS data set, or files such as data/{split}.jsonl.')
    if is_files(source):
        found = [record for path in paths(source, split) for record in read_file(path)]
    else:
        fields = sources.examples(source, split)
        found = [Record(f'example {i} of {source}, split {split!r},', f) for i, f in enumerate(fields)]
    if not found:
        raise UserError(f'{source}, split {split!r}, has no examples: check data.source and its splits.')
    if limit:
        found = [found[i] for i in np.random.default_rng(0).permutation(len(found))[:limit]]
    return found


def paths(source: str, split: str) -> list[str]:
    """The files of one split, or all of them if the path has no `{split}` in it."""
    named = source.replace('{split}', split)
    found = sorted(p for p in glob.glob(os.path.expanduser(named)) if os.path.isfile(p))
    if not found:
        raise UserError(f'No file matches {named!r}: set data.source.')
    return found


def _stop(problem: str) -> None:
    raise UserError(problem)


def read_file(path: str, refuse: Callable[[str], None] = _stop) -> Iterator[Record]:
    """The records of one file, each named by its line.

    Args:
      path: a file.
      refuse: called with what is wrong with a record; if it returns, the record is left out.
    """
    csv.field_size_limit(sys.maxsize)
    reader = _READERS[os.path.splitext(path)[1]]
    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
        for place, found in reader(file, path):
            if isinstance(found, _Bad):
                refuse(f'{path}, {place} {found.problem}')
            else:
                yield Record(f'{path}, {place},', found)


class _Bad(NamedTuple):
    """What stands in the place of a record that cannot be read, and what is wrong with it."""

    problem: str


_Found = Iterator[tuple[str, Mapping[str, Any] | _Bad]]
_NOT_UTF8 = _Bad('is not UTF-8 text: convert it.')


def _is_utf8(text: str) -> bool:
    """Whether a text of a file held no other bytes."""
    return not any('\udc80' <= c <= '\udcff' for c in text)


def _json_lines(file: TextIO, path: str) -> _Found:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f'line {number}', _parse(line) if _is_utf8(line) else _NOT_UTF8


def _parse(line: str) -> Mapping[str, Any] | _Bad:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as e:  # also of numbers too long and of brackets too deep for Python
        return _Bad(f'is not JSON ({first_line(e)}): a .jsonl file has one object a line.')
    if not isinstance(value, dict):
        return _Bad('is not a JSON object: write {"text": ..., "label": ...} on each line.')
    return value


def _table(file: TextIO, path: str) -> _Found:
    """Lines of a `.csv` or `.tsv` file by the names of its header."""
    if path.endswith('.tsv'):
        reader = csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE, restkey='')
    else:
        reader = csv.DictReader(file, restkey='')
    try:
        if not _is_utf8(str(reader.fieldnames)):
            raise UserError(f'{path!r} is not UTF-8 text: convert it.')
        for row in reader:
            whole = all(_is_utf8(str(value)) for value in row.values())
            yield f'line {reader.line_num}', row if whole else _NOT_UTF8
    except csv.Error as e:
        raise UserError(f'{path!r}, line {reader.line_num} is no line of a table ({e}): mend it.') from e


def _conll(file: TextIO, path: str) -> _Found:
    """Sentences of a file whose last column is the tag; a blank line ends a sentence."""
    for begin, lines in _sentences(file, ('-DOCSTART-', '# id ')):
        rows = [(n, [c for c in line.split('\t' if '\t' in line else ' ') if c]) for n, line in lines]
        tokens, tags = [columns[0] for _, columns in rows], [columns[-1] for _, columns in rows]
        bare = [n for n, columns in rows if len(columns) == 1]
        if not _is_utf8(''.join(tokens + tags)):
            yield f'line {begin}', _NOT_UTF8
        elif not bare:
            yield f'line {begin}', {'tokens': tokens, 'tags': _iob2(tags)}
        elif len(bare) == len(rows):
            yield f'line {begin}', {'tokens': tokens}
        else:
            yield f'line {bare[0]}', _Bad('has one column: write a word and its tag on each line.')


def _conllu(file: TextIO, path: str) -> _Found:
    """Sentences of a CoNLL-U file (Universal Dependencies); a blank line ends a sentence."""
    for begin, lines in _sentences(file, ('#',)):
        rows = [(n, line.split('\t')) for n, line in lines]
        if odd := [(n, columns) for n, columns in rows if len(columns) != 10]:
            problem = f'has {len(odd[0][1])} columns: a .conllu file has 10, split by tabs.'
            yield f'line {odd[0][0]}', _Bad(problem)
            continue
        # Neither the range of a contraction nor a word that was left out.
        words = [(columns[1], columns[3], columns[4]) for _, columns in rows if columns[0].isdigit()]
        if not _is_utf8(''.join(w for w, _, _ in words)):
            yield f'line {begin}', _NOT_UTF8
        elif words:
            fields = map(list, zip(*words, strict=True))
            yield f'line {begin}', dict(zip(('tokens', 'upos', 'xpos'), fields, strict=True))


def _sentences(file: Iterable[str], comments: tuple[str, ...]) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """For each sentence the number of its first line, and its numbered lines."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate([*file, ''], 1):
        line = line.rstrip('\r\n')
        if line.strip():
            if not line.startswith(comments):
                found.append((number, line))
        elif found:
            yield found[0][0], found
            found = []


def _iob2(tags: Sequence[str]) -> list[str]:
    """Tags with B- at the start of each entity, where IOB1 has it between neighbours of one kind alone.

    Tags that are not all O, B-X or I-X stay as they are, as do those of IOB2.
    """
    if not all(tag == 'O' or tag.startswith(('B-', 'I-')) for tag in tags):
        return [*tags]
    before = ['O', *tags]
    return [
        f'B-{tag[2:]}' if tag.startswith('I-') and before[i][2:] != tag[2:] else tag
        for i, tag in enumerate(tags)
    ]


def _squad(file: TextIO, path: str) -> _Found:
    """Questions of a file in the format of SQuAD, which XQuAD, MLQA and DRCD share."""
    text = file.read()
    if not _is_utf8(text):
        raise UserError(f'{path!r} is not UTF-8 text: convert it.')
    try:
        paragraphs = [p for article in json.loads(text)['data'] for p in article['paragraphs']]
        asked = [(p, question) for p in paragraphs for question in p['qas']]
    except (ValueError, RecursionError, KeyError, TypeError) as e:
        raise UserError(
            f'{path!r} is not in the format of SQuAD ({type(e).__name__}: {first_line(e)}): '
            'it has data, paragraphs, context and qas.'
        ) from e
    for number, (paragraph, question) in enumerate(asked, 1):
        try:
            fields = {k: question[k] for k in ('id', 'question')} | {'context': paragraph['context']}
            answers = [] if question.get('is_impossible') else question.get('answers')
            if answers is not None:
                fields['answers'] = {k: [a[k] for a in answers] for k in ('text', 'answer_start')}
        except (KeyError, TypeError, AttributeError) as e:
            yield (
                f'question {number}',
                _Bad(f'is not as SQuAD has it ({type(e).__name__}: {e}): mend or remove it.'),
            )
        else:
            yield f'question {fields["id"]}', fields | {'id': str(fields['id'])}


_READERS: Mapping[str, Callable[[TextIO, str], _Found]] = {
    '.jsonl': _json_lines,
    '.csv': _table,
    '.tsv': _table,
    '.json': _squad,
    '.conllu': _conllu,
    '.conll': _conll,
    '.bio': _conll,
    '.iob2': _conll,
}
FORMATS = tuple(_READERS)
