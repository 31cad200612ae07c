"""Read the pages of the documentation: code blocks, links and words in code style."""

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Files, and folders with all Markdown files in them, whose examples and links are tested. To add one, name it here.
TESTED = ('README.md', 'docs', 'CONTRIBUTING.md')
GENERATED = ('docs/_build', 'docs/reference/api', 'docs/reference/commands', 'docs/reference/config')
SHELL = ('', 'bash', 'console', 'sh', 'shell')

_NOT_RUN = re.compile(r'<!--\s*not run: (.+?)\s*-->')


class Block(NamedTuple):
    """A fenced code block.

    Attributes:
      page: file name below the repository root.
      line: line number of the opening fence.
      language: word after the fence.
      text: code.
      reason: why the block is not run, from a comment `<!-- not run: reason -->` above it; otherwise empty.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'


def names() -> list[str]:
    """Return the tested pages, as file names below the repository root."""
    found = []
    for name in TESTED:
        path = ROOT / name
        files = sorted(path.rglob('*.md')) if path.is_dir() else [path]
        found += [str(f.relative_to(ROOT)) for f in files]
    return [name for name in found if not name.startswith(GENERATED)]


def blocks(page: str, text: str | None = None) -> Iterator[Block]:
    """Yield the fenced code blocks of a page; directives such as ```{toctree} are left out."""
    lines = (text if text is not None else (ROOT / page).read_text()).splitlines()
    i, reason = 0, ''
    while i < len(lines):
        fence = re.match(r'(\s*)(`{3,}|~{3,})\s*(\S*)', lines[i])
        if not fence:
            if lines[i].strip():
                comment = _NOT_RUN.fullmatch(lines[i].strip())
                reason = comment[1] if comment else ''
            i += 1
            continue
        indent, marks, language = fence.groups()
        end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == marks), len(lines))
        code = '\n'.join(line.removeprefix(indent) for line in lines[i + 1 : end])
        if not language.startswith('{'):
            yield Block(page, i + 1, language, code, reason)
        i, reason = end + 1, ''


def prose(page: str, text: str | None = None) -> str:
    """Return the text of a page with its code blocks and comments blanked, line for line."""
    text = (ROOT / page).read_text() if text is None else text
    kept, marks = [], ''
    for line in text.splitlines():
        fence = re.match(r'\s*(`{3,}|~{3,})', line)
        if fence and (not marks or line.strip() == marks):
            marks = '' if marks else fence[1]
            line = ''
        kept.append('' if marks else line)
    return re.sub(r'<!--.*?-->', lambda m: '\n' * m[0].count('\n'), '\n'.join(kept), flags=re.DOTALL)


def code_words(page: str, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of everything between single backticks."""
    for number, line in enumerate(prose(page, text).splitlines(), 1):
        for match in re.finditer(r'(?<!`)`([^`]+)`(?!`)', line):
            yield number, match[1]
