"""Records of labelled data: dicts, from a TFDS data set or from files of one's own."""

import csv
import glob
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError
from bert_jax.data import sources

_FILES = ('.jsonl', '.csv', '.tsv', '.json', '.conll', '.conllu', '.bio', '.iob2')


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
                known = [*value] if isinstance(value, Mapping) else []
                raise UserError(f'{self.where} has no field {name!r}: {nearest(part, known)}')
        return value

    def text(self, name: str) -> str:
        """A field that is a text, as Unicode that can be encoded."""
        value = self.get(name)
        if value is None:
            raise UserError(f'{self.where} has no text in the field {name!r}: mend or remove it.')
        return str(value).encode('utf-8', 'replace').decode('utf-8')  # JSON may hold half a surrogate pair


def is_files(source: str) -> bool:
    return source.endswith(_FILES)


def read(source: str, split: str, limit: int = 0) -> list[Record]:
    """The records of one split.

    Args:
      source: a TFDS name, or a path or glob, with `{split}` in it if there are several. `.jsonl`, `.csv` and `.tsv` (these with a
        header line) name their fields; `.conllu` gives `tokens`, `upos` and `xpos`; `.conll`, `.bio` and
        `.iob2` give `tokens` and, from the last column, `tags`, those of entities as IOB2 (CoNLL-2003 is IOB1);
        `.json` is the format of SQuAD.
      split: which.
      limit: only so many, chosen by a fixed random order; 0 is all, in their own.

    Raises:
      UserError: if there is nothing, or it cannot be read.
    """
    if not source:
        raise UserError('data.source is empty: name a TFDS data set, or files such as data/{split}.jsonl.')
    fields = _of_files(source, split) if is_files(source) else sources.examples(source, split)
    found = [Record(f'example {i} of {source}, split {split!r},', f) for i, f in enumerate(fields)]
    if not found:
        raise UserError(f'{source}, split {split!r}, has no examples: check data.source and its splits.')
    if limit:
        found = [found[i] for i in np.random.default_rng(0).permutation(len(found))[:limit]]
    return found


def _of_files(source: str, split: str) -> Iterator[Mapping[str, Any]]:
    for path in paths(source, split):
        yield from read_file(path)


def paths(source: str, split: str) -> list[str]:
    """The files of one split, or all of them if the path has no `{split}` in it."""
    named = source.replace('{split}', split)
    found = sorted(p for p in glob.glob(os.path.expanduser(named)) if os.path.isfile(p))
    if not found:
        raise UserError(f'No file matches {named!r}: set data.source.')
    return found


def read_file(path: str) -> Iterator[Mapping[str, Any]]:
    """The records of one file."""
    csv.field_size_limit(sys.maxsize)
    with open(path, encoding='utf-8-sig', newline='') as file:
        try:
            if path.endswith('.jsonl'):
                yield from (
                    parse(line, f'{path}, line {n}') for n, line in enumerate(file, 1) if line.strip()
                )
            elif path.endswith('.json'):
                yield from _squad(file.read(), path)
            elif path.endswith('.tsv'):
                yield from csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE, restkey='')
            elif path.endswith('.csv'):
                yield from csv.DictReader(file, restkey='')
            else:
                yield from _conll(file, path)
        except UnicodeDecodeError as e:
            raise UserError(f'{path!r} is not UTF-8 text: convert it.') from e


def parse(line: str, where: str) -> Mapping[str, Any]:
    """One line of a `.jsonl` file."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as e:
        raise UserError(f'{where} is not JSON ({e.msg}): a .jsonl file has one object a line.') from e
    if not isinstance(value, dict):
        raise UserError(f'{where} is not a JSON object: write {{"text": ..., "label": ...}} on each line.')
    return value


def _conll(lines: Iterator[str], path: str) -> Iterator[Mapping[str, Any]]:
    """Sentences of a CoNLL-U file, or of one whose last column is the tag; a blank line ends a sentence."""
    universal = path.endswith('.conllu')
    names = ('tokens', 'upos', 'xpos') if universal else ('tokens', 'tags')
    words: list[tuple[str, ...]] = []
    for number, line in enumerate([*lines, ''], 1):
        line = line.rstrip('\r\n')
        if not line.strip():
            if words:
                fields = [list(field) for field in zip(*words, strict=True)]
                yield dict(zip(names, fields if universal else [fields[0], _iob2(fields[1])], strict=True))
            words = []
        elif universal and not line.startswith('#'):
            columns = line.split('\t')
            if len(columns) != 10:
                raise UserError(
                    f'{path}, line {number} has {len(columns)} columns: a .conllu file has 10, split by tabs.'
                )
            if columns[0].isdigit():  # neither the range of a contraction nor a word that was left out
                words.append((columns[1], columns[3], columns[4]))
        elif not universal and not line.startswith(('-DOCSTART-', '# id ')):
            columns = [c for c in line.split('\t' if '\t' in line else ' ') if c]
            if len(columns) < 2:
                raise UserError(
                    f'{path}, line {number} has one column: write a word and its tag on each line.'
                )
            words.append((columns[0], columns[-1]))


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


def _squad(text: str, path: str) -> Iterator[Mapping[str, Any]]:
    """Questions of a file in the format of SQuAD, which XQuAD, MLQA and DRCD share."""
    try:
        for article in json.loads(text)['data']:
            for paragraph in article['paragraphs']:
                for question in paragraph['qas']:
                    fields = {
                        'id': str(question['id']),
                        'context': paragraph['context'],
                        'question': question['question'],
                    }
                    answers = [] if question.get('is_impossible') else question.get('answers')
                    if answers is not None:
                        fields['answers'] = {k: [a[k] for a in answers] for k in ('text', 'answer_start')}
                    yield fields
    except (json.JSONDecodeError, KeyError, TypeError) as e:
        raise UserError(
            f'{path!r} is not in the format of SQuAD ({type(e).__name__}: {e}): it has data, paragraphs, context and qas.'
        ) from e
