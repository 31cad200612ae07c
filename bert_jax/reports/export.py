"""Tables and figures as files: Markdown, CSV, LaTeX, PNG, JSON; and as parts of a page."""

import csv
import html
import io
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from bert_jax.core import paths

Lines = Sequence[Sequence[str]]


def write(
    folder: pathlib.Path,
    name: str,
    text: str,
    lines: Lines,
    figure: Any = None,
    numbers: Any = None,
) -> None:
    """Writes NAME.md, which is `text`, NAME.csv and NAME.tex of its table `lines`, and, if given, NAME.png and NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    paths.write(folder / f'{name}.md', text)
    paths.write(folder / f'{name}.csv', comma_separated(lines))
    paths.write(folder / f'{name}.tex', latex(lines))
    if figure is not None:
        figure.savefig(folder / f'{name}.png', dpi=150)
    if numbers is not None:
        paths.write(folder / f'{name}.json', json.dumps(numbers, indent=2) + '\n')


def find(folder: pathlib.Path) -> list[pathlib.Path]:
    """The Markdown files of what `write` has written, in a folder or below it."""
    return sorted(p for p in folder.rglob('*.md') if p.with_suffix('.csv').is_file())


def to_html(text: str) -> str:
    """Markdown as `write` writes it, titles, tables and paragraphs, as HTML."""
    parts = []
    for block in re.split(r'\n\s*\n', text.strip()):
        if block.startswith('|'):
            head, _, *body = block.splitlines()
            lines = [('th', head), *(('td', line) for line in body)]
            rows = (
                f'<tr>{"".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in _cells(line))}</tr>'
                for tag, line in lines
            )
            parts.append(f'<div class="wide"><table>{"".join(rows)}</table></div>')
        elif block.startswith('# '):
            parts.append(f'<h2>{html.escape(block[2:])}</h2>')
        else:
            parts.append(f'<p>{html.escape(block).replace(chr(10), "<br>")}</p>')
    return ''.join(parts)


def _cells(line: str) -> list[str]:
    """The cells of a line of `markdown`."""
    return [cell.strip().replace(r'\|', '|') for cell in re.split(r'(?<!\\)\|', line)[1:-1]]


def markdown(lines: Lines) -> str:
    rows = [
        '| ' + ' | '.join(' '.join(cell.splitlines()).replace('|', r'\|') for cell in line) + ' |'
        for line in lines
    ]
    return '\n'.join([rows[0], '|' + '---|' * len(lines[0]), *rows[1:]]) + '\n'


def comma_separated(lines: Lines) -> str:
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


def latex(lines: Lines) -> str:
    """A tabular, for booktabs."""

    def escaped(text: str) -> str:
        return text.translate(_LATEX)

    # A line that began with [ or * would be read as an option of the line break before it.
    protected = [('{}' if line[0].startswith(('[', '*')) else '', line) for line in lines]
    head, *body = [brace + ' & '.join(map(escaped, line)) + r' \\' for brace, line in protected]
    columns = 'l' + 'r' * (len(lines[0]) - 1)
    return '\n'.join(
        [
            rf'\begin{{tabular}}{{{columns}}}',
            r'\toprule',
            head,
            r'\midrule',
            *body,
            r'\bottomrule',
            r'\end{tabular}',
            '',
        ]
    )
