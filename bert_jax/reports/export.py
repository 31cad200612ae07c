"""Write tables and figures as Markdown, CSV, LaTeX, JSON and PNG files, and convert them to HTML."""

import csv
import html
import io
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from bert_jax.core import paths
from bert_jax.experiments import runs

Lines = Sequence[Sequence[str]]  # cells of a table, the header first


def write(
    folder: pathlib.Path,
    name: str,
    text: str,
    lines: Lines,
    figure: Any = None,
    values: Any = None,
    numbers: Sequence[Sequence[Any]] = (),
) -> None:
    """Write a result as NAME.md, NAME.csv and NAME.tex, and optionally NAME.png and NAME.json.

    Args:
      folder: where to write; created if missing.
      name: file name without extension.
      text: content of NAME.md.
      lines: the table, for NAME.tex and, without `numbers`, NAME.csv.
      figure: a Matplotlib figure, for NAME.png.
      values: JSON-serializable values, for NAME.json.
      numbers: the table for NAME.csv, the header first, with one number or text in each cell.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_atomic(folder / f'{name}.md', text)
    paths.write_atomic(folder / f'{name}.csv', to_csv(numbers or lines))
    paths.write_atomic(folder / f'{name}.tex', to_latex(lines))
    if figure is not None:
        figure.savefig(folder / f'{name}.png', dpi=150)
    if values is not None:
        paths.write_atomic(folder / f'{name}.json', json.dumps(values, indent=2) + '\n')


def find(folder: pathlib.Path) -> list[pathlib.Path]:
    """Find the Markdown files in a folder and its subfolders that `write` created, without earlier results."""
    return sorted(
        p
        for p in paths.find_files(folder, '*.md')
        if p.with_suffix('.csv').is_file() and not runs.is_earlier_result(p.relative_to(folder))
    )


def to_html(text: str) -> str:
    """Convert Markdown text as written by `write` to HTML. Supports only titles, tables and paragraphs."""
    parts = []
    for block in re.split(r'\n\s*\n', text.strip()):
        if block.startswith('|'):
            header, _, *body = map(_split_cells, block.splitlines())
            parts.append(html_table([header, *body]))
        elif block.startswith('# '):
            parts.append(f'<h2>{html.escape(block[2:])}</h2>')
        else:
            parts.append(f'<p>{html.escape(block).replace(chr(10), "<br>")}</p>')
    return ''.join(parts)


def _split_cells(line: str) -> list[str]:
    """Split a line of a Markdown table into its cells."""
    return [cell.strip().replace(r'\|', '|') for cell in re.split(r'(?<!\\)\|', line)[1:-1]]


def html_table(lines: Lines) -> str:
    """Format a table as HTML."""
    rows = ''
    for i, line in enumerate(lines):
        tag = 'td' if i else 'th'
        rows += f'<tr>{"".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)}</tr>'
    return f'<div class="wide"><table>{rows}</table></div>'


def to_markdown(lines: Lines) -> str:
    """Format a table as Markdown."""
    rows = [
        '| ' + ' | '.join(' '.join(cell.splitlines()).replace('|', r'\|') for cell in line) + ' |'
        for line in lines
    ]
    return '\n'.join([rows[0], '|' + '---|' * len(lines[0]), *rows[1:]]) + '\n'


def to_csv(lines: Sequence[Sequence[Any]]) -> str:
    """Format a table as comma-separated values; None is an empty cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator='\n').writerows(lines)
    return out.getvalue()


_LATEX = str.maketrans(
    {
        **{c: f'\\{c}' for c in '%&_#${}'},
        '\\': r'\textbackslash{}',
        '~': r'\textasciitilde{}',
        '^': r'\textasciicircum{}',
        '<': r'\textless{}',
        '>': r'\textgreater{}',
        '|': r'\textbar{}',
        '±': r'$\pm$',
        'α': r'$\alpha$',
    }
)


def to_latex(lines: Lines) -> str:
    """Format a table as a LaTeX `tabular` environment, which needs the package booktabs."""
    rows = [' & '.join(cell.translate(_LATEX) for cell in line) + r' \\' for line in lines]
    # LaTeX would parse [ or * at the beginning of a line as an option of the preceding line break.
    header, *body = ['{}' + row if row.startswith(('[', '*')) else row for row in rows]
    columns = 'l' + 'r' * (len(lines[0]) - 1)
    return '\n'.join(
        [
            rf'\begin{{tabular}}{{{columns}}}',
            r'\toprule',
            header,
            r'\midrule',
            *body,
            r'\bottomrule',
            r'\end{tabular}',
            '',
        ]
    )
