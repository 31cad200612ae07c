"""Tables with a header line: `.csv` and `.tsv` files."""

import csv
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from bert_jax.core.errors import UserError
from bert_jax.data.files import split_suffix
from bert_jax.data.formats.common import (
    NOT_UTF8,
    Invalid,
    LocatedFields,
    count_columns,
    is_utf8,
    log_once,
    not_utf8_error,
)

_SAMPLE_LINES = 50
_DELIMITERS = {',': 'commas', ';': 'semicolons', '\t': 'tabs'}


def read(file: TextIO, path: str) -> LocatedFields:
    """Read a table, whose header line names the fields.

    Columns are separated by tabs in a `.tsv` file and by commas in others, unless the first lines form a table only with
    another delimiter. Quotation marks have no special meaning between tabs of a `.tsv` file, as in GLUE.
    """
    sample = [*itertools.islice(file, _SAMPLE_LINES)]
    options = _detect_options(sample, path)
    rows = _numbered_rows(itertools.chain(sample, file), options, path)
    _, header = next(rows, (0, []))
    names = _read_header(header, path)
    delimiter = options['delimiter']
    for line, row in rows:
        if not is_utf8(''.join(row)):
            yield f'line {line}', NOT_UTF8
        elif len(row) != len(names):
            cure = f'Quote texts that contain {_DELIMITERS[delimiter]}.'
            if options['quoting'] == csv.QUOTE_NONE:
                cure = 'Remove tabs and line breaks from texts.'
            problem = f'has {count_columns(len(row))}, but the header has {len(names)}. {cure}'
            yield f'line {line}', Invalid(problem)
        else:
            yield f'line {line}', {name: cell for name, cell in zip(names, row, strict=True) if name}


def _numbered_rows(
    lines: Iterator[str], options: dict[str, Any], path: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row, and its cells."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, **options)
    start = 1
    try:
        for row in reader:
            if row:  # the line is not blank
                yield start, row
            start = reader.line_num + 1
    except csv.Error as e:
        raise UserError(
            f'{path!r}, line {start} is not a valid table row ({e}). Close its quotation marks, and double those '
            'inside a quoted text.'
        ) from e


def _read_header(header: Sequence[str], path: str) -> list[str]:
    names = [name.strip() for name in header]
    if not is_utf8(''.join(names)):
        raise not_utf8_error(path)
    if repeated := [name for name in names if name and names.count(name) > 1]:
        raise UserError(
            f'{path!r} has {names.count(repeated[0])} columns with the name {repeated[0]!r}. '
            'Give each column its own name in the first line.'
        )
    return names


def _detect_options(sample: Sequence[str], path: str) -> dict[str, Any]:
    """Return the options for `csv.reader` with which the first lines of a file form a table."""
    is_tsv = split_suffix(path)[0] == '.tsv'
    default = '\t' if is_tsv else ','
    header = next((line for line in sample if line.strip()), '')
    # If no delimiter makes a table, the error will name the first line that does not fit to the likeliest one.
    likeliest = max(_DELIMITERS, key=lambda d: (header.count(d), d == default))
    for delimiter in (default, *(d for d in _DELIMITERS if d != default), likeliest):
        options = {'delimiter': delimiter, 'strict': True, 'quoting': csv.QUOTE_MINIMAL}
        if is_tsv and delimiter == '\t':
            options['quoting'] = csv.QUOTE_NONE
        spaced = {**options, 'skipinitialspace': options['quoting'] == csv.QUOTE_MINIMAL}
        rows = _parse_sample(sample, options)
        has_spaces = f'{delimiter} ' in header or any(re.match(' +"', cell) for row in rows for cell in row)
        if (has_spaces or not rows) and _parse_sample(sample, spaced):
            options, rows = spaced, [[header]]
        if rows:
            break
    if options['delimiter'] != default:
        log_once(f'{path}: columns are separated by {_DELIMITERS[delimiter]}')
    if options.get('skipinitialspace'):
        log_once(f'{path}: spaces after {_DELIMITERS[delimiter]} are ignored')
    return options


def _parse_sample(sample: Sequence[str], options: dict[str, Any]) -> list[list[str]]:
    """Return the rows of a sample, or none unless all have the same number of columns, at least two."""
    rows = []
    try:
        for row in csv.reader(sample, **options):
            rows += [row] if row else []
    except csv.Error as e:
        if 'unexpected end of data' not in str(e):  # the sample may end inside a quoted text
            return []
    sizes = {len(row) for row in rows}
    return rows if len(sizes) == 1 and sizes != {1} else []
