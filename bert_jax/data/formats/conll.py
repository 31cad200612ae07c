"""CoNLL files and their relatives: one word per line, its labels in columns, a blank line after each sentence."""

import collections
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

from bert_jax.core.errors import UserError
from bert_jax.data.files import split_suffix
from bert_jax.data.formats.common import (
    NOT_UTF8,
    Invalid,
    LocatedFields,
    count_columns,
    is_utf8,
    log_once,
)

# Lines between or before the words: of CoNLL-2003, `# key = value`, of MultiCoNER, of CoNLL-2012, of JNLPBA.
_COMMENT = re.compile(
    r'-DOCSTART-|# ?[^\s=]\S*( \S+)? =( |$)|# (id|newdoc|newpar)\b|#(begin|end) document|###\S*:'
)
_CONLLU_COLUMNS = ('id', 'form', 'lemma', 'upos', 'xpos', 'feats', 'head', 'deprel', 'deps', 'misc')
_COLUMN_NAMES = '# global.columns ='  # of CoNLL-U Plus
# Ids such as 1-2 mark contractions, whose words follow; ids such as 2.1 mark words missing from the text.
_OTHER_ID = re.compile('[0-9]+[-.][0-9]+')
_CONLLU_ID = re.compile(r'[0-9]+([-.][0-9]+)?')
ENTITY_TAG = re.compile('O|[BIESLU]-.+')  # of the schemes IOB1, IOB2, BIOES and BILOU


class _Line(NamedTuple):
    number: int
    text: str


class _Row(NamedTuple):
    """The columns of a line, and its number in the file."""

    number: int
    columns: list[str]


def read(file: TextIO, path: str) -> LocatedFields:
    """Read the sentences of a file.

    In CoNLL-U (Universal Dependencies), recognized by its suffix or its ten columns, the fields are the columns by name,
    with `tokens` for FORM. CoNLL-U Plus names its columns in its first line.

    In other files, the fields are `tokens`, from the first column, and `tags`, from the last one, and all columns as
    `column1`, `column2` and so on. If the first column holds entity tags and the last one does not, the words are in the
    second. If the first column counts the words of each sentence, the words are in the second, and the tags in the third
    if it holds entity tags. Sentences of words without tags have no `tags`. Comments are skipped.
    """
    sentences = _split_sentences(file)
    lines = [line.text for sentence in sentences for line in sentence]
    if names := _conllu_columns(lines, path):
        yield from _read_conllu(sentences, names, path)
    else:
        yield from _read_columns(sentences, path)


def _split_sentences(lines: Iterable[str]) -> list[list[_Line]]:
    """Return the numbered lines of each sentence, with comments; a blank line ends a sentence."""
    sentences: list[list[_Line]] = [[]]
    for number, line in enumerate(lines, 1):
        if text := line.rstrip(' \t\r\n'):
            sentences[-1].append(_Line(number, text))
        elif sentences[-1]:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _conllu_columns(lines: Sequence[str], path: str) -> Sequence[str]:
    """Return the names of the columns of a CoNLL-U file; empty for other files."""
    named = next((line for line in lines if line.startswith(_COLUMN_NAMES)), '')
    if named:
        return named.removeprefix(_COLUMN_NAMES).lower().split()
    first = next((line for line in lines if not line.startswith('#')), '').split('\t')
    is_conllu = len(first) == len(_CONLLU_COLUMNS) and _CONLLU_ID.fullmatch(first[0])
    has_suffix = split_suffix(path)[0] in ('.conllu', '.conllup', '.cupt')
    return _CONLLU_COLUMNS if is_conllu or has_suffix else ()


def _read_conllu(sentences: Sequence[Sequence[_Line]], names: Sequence[str], path: str) -> LocatedFields:
    if not {'id', 'form'} <= {*names}:
        raise UserError(
            f'{path!r} has no columns ID and FORM in the line {_COLUMN_NAMES!r}. Use a file with words.'
        )
    fields = ['tokens' if name == 'form' else name for name in names]
    place = names.index('id')
    for sentence in sentences:
        rows = [_Row(n, text.split('\t')) for n, text in sentence if not text.startswith('#')]
        problems = [
            (row.number, problem)
            for row in rows
            if (problem := _conllu_problem(row.columns, len(names), place))
        ]
        if problems:
            yield f'line {problems[0][0]}', Invalid(problems[0][1])
        elif not is_utf8(''.join(text for _, text in sentence)):
            yield f'line {sentence[0].number}', NOT_UTF8
        elif words := [row.columns for row in rows if row.columns[place].isdecimal()]:
            columns = map(list, zip(*words, strict=True))
            yield f'line {rows[0].number}', dict(zip(fields, columns, strict=True))


def _conllu_problem(columns: Sequence[str], width: int, place: int) -> str:
    """Return what is wrong with a line of CoNLL-U, whose ID is at `place`; empty if nothing is."""
    if len(columns) != width:
        return f'has {count_columns(len(columns))} instead of {width}. Separate the columns by tabs.'
    if not _CONLLU_ID.fullmatch(columns[place]):
        return f'has the ID {columns[place][:20]!r}. Number the words, as in 1, 2-3 or 3.1.'
    return ''


def _read_columns(sentences: Sequence[Sequence[_Line]], path: str) -> LocatedFields:
    split = _split_columns(sentences)
    has_counter = _has_counter(split)
    if has_counter:
        split = [[row for row in rows if not _OTHER_ID.fullmatch(row.columns[0])] for rows in split]
    words_only = 2 if has_counter else 1  # columns of a sentence without tags: counter, if any, and word
    are_tagged = [any(len(row.columns) > words_only for row in rows) for rows in split]
    tagged = itertools.compress(split, are_tagged)
    word, tag, width = _find_columns([row.columns for rows in tagged for row in rows], has_counter)
    if word:
        tags = f' and tags from column {tag + 1}' if any(are_tagged) else ''
        others = 'data.tokens and data.label can name others, such as column4'
        log_once(f'{path}: words are read from column {word + 1}{tags}; {others}')
    for rows, is_tagged in zip(split, are_tagged, strict=True):
        invalid = next((row for row in rows if is_tagged and width and len(row.columns) != width), None)
        if not is_utf8(''.join(''.join(row.columns) for row in rows)):
            yield f'line {rows[0].number}', NOT_UTF8
        elif has_counter and not _counts(rows):
            problem = 'begins a sentence whose first column does not count its words. Correct the numbers.'
            yield f'line {rows[0].number}', Invalid(problem)
        elif invalid:
            has = count_columns(len(invalid.columns))
            problem = f'has {has}, but other lines have {width}. Write a word and its tag on each line.'
            yield f'line {invalid.number}', Invalid(problem)
        elif rows:
            columns = [*map(list, zip(*(row.columns for row in rows), strict=False))]
            fields = {'tokens': columns[word if is_tagged else words_only - 1]}
            fields |= {'tags': columns[tag]} if is_tagged else {}
            fields |= {f'column{i}': column for i, column in enumerate(columns, 1)}
            yield f'line {rows[0].number}', fields


def _split_columns(sentences: Sequence[Sequence[_Line]]) -> list[list[_Row]]:
    """Split the lines of all sentences at tabs or else at spaces, and remove comments."""
    texts = [text for sentence in sentences for _, text in sentence]
    lines = [text for text in texts if not text.startswith('#') and not _COMMENT.match(text)]
    has_tabs = 2 * sum('\t' in line for line in lines) > len(lines)

    def split(text: str) -> list[str]:
        return re.split(' *\t *' if has_tabs else '[ \t]+', text.lstrip(' \t'))

    widths = collections.Counter(len(split(line)) for line in lines)
    usual = widths.most_common(1)[0][0] if widths else 0
    found = []
    for sentence in sentences:
        rows = [_Row(number, split(text)) for number, text in sentence if not _COMMENT.match(text)]
        # Any other line that begins with # is a comment too, unless it has as many columns as most lines.
        rows = [r for r in rows if not r.columns[0].startswith('#') or len(r.columns) == usual or not usual]
        found += [rows] if rows else []
    return found


def _has_counter(sentences: Sequence[Sequence[_Row]]) -> bool:
    """Return whether the first column counts the words of most sentences with two or more words."""
    long = [rows for rows in sentences if len(rows) > 1]
    return 2 * sum(map(_counts, long)) > len(long)


def _counts(rows: Sequence[_Row]) -> bool:
    """Return whether the first column of a sentence counts its words from 0 or 1."""
    ids = [row.columns[0] for row in rows if not _OTHER_ID.fullmatch(row.columns[0])]
    is_counted = ids in ([*map(str, range(first, first + len(ids)))] for first in (0, 1))
    return is_counted and all(len(row.columns) > 1 for row in rows)


def _find_columns(lines: Sequence[Sequence[str]], has_counter: bool) -> tuple[int, int, int]:
    """Find the columns of the words and the tags.

    Args:
      lines: columns of the lines of all sentences with tags.
      has_counter: whether the first column counts words.

    Returns:
      The indices of the two columns, and the number of columns that each line must have; 0 if it may have more than
      these.
    """
    if not lines:
        return int(has_counter), 2, 0

    def are_entity_tags(index: int) -> bool:
        return all(len(line) > index and ENTITY_TAG.fullmatch(line[index]) for line in lines)

    width = collections.Counter(map(len, lines)).most_common(1)[0][0]
    if has_counter and are_entity_tags(2):
        return 1, 2, 0
    if not has_counter and are_entity_tags(0) and not are_entity_tags(width - 1):
        return 1, 0, width
    return int(has_counter), width - 1, width
