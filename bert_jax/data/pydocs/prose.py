"""Convert docstrings to prose: remove markup, code and tables, and join wrapped lines."""

import re
from collections.abc import Iterable, Iterator

PARAMETER_HEADINGS = frozenset({'Args', 'Arguments', 'Parameters', 'Params', 'Other Parameters'})
PARAMETER_HEADINGS |= {'Keyword Args', 'Keyword Arguments'}
RETURN_HEADINGS = frozenset({'Returns', 'Return', 'Yields', 'Yield'})
HEADINGS = PARAMETER_HEADINGS | RETURN_HEADINGS
HEADINGS |= {'Raises', 'Warns', 'Attributes', 'Methods', 'Example', 'Examples', 'Note', 'Notes'}
HEADINGS |= {'References', 'See Also', 'See also', 'Warnings', 'Usage', 'Receives'}
_CODE_ROLES = {'func', 'class', 'meth', 'mod', 'attr', 'obj', 'exc', 'data', 'const', 'any'}
_KEPT_DIRECTIVES = {'note', 'warning', 'caution', 'important', 'tip', 'seealso', 'deprecated'}
_DIRECTIVE = re.compile(r'\.\.\s+([\w:-]+)::\s*(.*)$')
_UNDERLINE = re.compile(r'([=\-~^#*+_.`"\'])\1{2,}$')
_TABLE_BORDER = re.compile(r'(?=.*[ +|])[=+\-|][=+\-| ]{4,}$')
_ENTRY = re.compile(r'([-*•+]\s|\(?\d{1,2}[.)]\s|:[a-z]|\.\. |@\w)')
_GOOGLE_ENTRY = re.compile(r'\*{0,2}\w+(?:\.\w+)*(?: ?\([^()]*(?:\([^()]*\)[^()]*)*\))?: ')
_NUMPY_ENTRY = re.compile(r'\*{0,2}\w+(?:, \*{0,2}\w+)* : ')
_MISSING_SPACE = re.compile(r'^(\s*\*{0,2}\w+): ')
_LEGAL = re.compile(
    r'(copyright\b|licensed under|unless required by applicable law|permission is hereby granted'
    r'|the above copyright|the software is provided|no warranty)',
    re.IGNORECASE,
)


def is_heading(line: str, headings: frozenset[str] = HEADINGS) -> bool:
    """Return whether a line is the heading of a docstring section, such as `Args:`."""
    return line.strip().removesuffix(':') in headings


def _prose_lines(doc: str) -> Iterator[str]:
    """Yield the lines of a docstring without examples, code, tables, underlines and most directives."""
    skip_from: int | None = None  # lines with a larger indent are dropped
    skip_paragraph = fenced = False
    previous, numpy_indent = '', -1  # `numpy_indent` is the indent of an underlined heading
    for line in doc.expandtabs().split('\n'):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped.startswith(('```', '~~~~')):
            fenced = not fenced
        elif fenced:
            continue
        elif not stripped:
            skip_paragraph = False
            yield ''
        elif skip_from is not None and indent > skip_from:
            continue
        else:
            skip_from = None
            if stripped.startswith('>>>') or _TABLE_BORDER.match(stripped):
                skip_paragraph = True
            if _UNDERLINE.match(stripped):
                numpy_indent = indent if is_heading(previous) else -1
            if skip_paragraph or _UNDERLINE.match(stripped) or stripped.startswith(':meta '):
                continue
            previous = stripped
            if match := _DIRECTIVE.match(stripped):
                if match[1] in _KEPT_DIRECTIVES:
                    yield ' ' * indent + f'{match[1].capitalize()}: {match[2]}'.rstrip()
                else:
                    skip_from = indent
            elif stripped.startswith('.. ') or stripped == '..':
                skip_from = indent
            elif stripped.endswith('::'):
                skip_from = indent
                if kept := stripped[:-2].rstrip():
                    yield ' ' * indent + kept + ':'
            elif indent == numpy_indent:
                yield _MISSING_SPACE.sub(r'\1 : ', line.rstrip())
            else:
                yield line.rstrip()


def _plain_role(match: re.Match[str]) -> str:
    """Return the plain text of a reST role such as :func:`~a.b`."""
    role, target = match[1].rpartition(':')[2], match[2]
    if titled := re.match(r'(.+?)\s*<[^<>]*>$', target, re.DOTALL):
        return titled[1]
    if target.startswith('~'):
        target = target.rpartition('.')[2].lstrip('~')
    target = target.lstrip('!')
    return f'`{target}`' if role in _CODE_ROLES else target


_INLINE = (
    (re.compile(r':([\w:+-]+):`([^`]+)`'), _plain_role),
    (re.compile(r'``([^`]+)``'), r'`\1`'),  # reST literal
    (re.compile(r'`([^`<]+?)\s*<[^<>`]*>`__?'), r'\1'),  # reST link with a URL
    (re.compile(r'`([^`\n]+)`__?(?!\w)'), r'\1'),  # reST named link
    (re.compile(r'!?\[([^\]\n]+)\]\([^()\s]+\)'), r'\1'),  # Markdown link or image
    (re.compile(r'(\[[#*]?\w*\])_(?!\w)'), r'\1'),  # reST footnote
    (re.compile(r'`(?:~[\w.]*\.|~|\.)([\w.]+(?:\(\))?)`'), r'`\1`'),  # shortened cross-reference
    (re.compile(r'\*\*(?=\w)([^*\n]+)\*\*(?!\w)'), r'\1'),  # bold
    (re.compile(r'(?<![\w*(])\*(\w(?:[^*\n]*\w)?)\*(?![\w*])'), r'\1'),  # italic
    (re.compile(r'\\([*_`|<>])'), r'\1'),  # escaped markup
    (re.compile(r'\\ '), ''),  # escaped space, which separates markup from text
)


def _reflow(lines: Iterable[str]) -> str:
    """Join wrapped lines; section headings, list items and parameter entries start new lines."""
    out: list[str] = []
    previous_indent = first_indent = 0  # of the previous line, and of the first line that it was joined to
    is_hanging = False  # whether the current line is an entry, whose next lines may have a larger indent
    is_open = False  # whether the next line may be joined to the current one
    for line in lines:
        stripped = line.strip()
        if not stripped:
            is_open = False
            if out and out[-1]:
                out.append('')
            continue
        indent = len(line) - len(line.lstrip())
        is_entry = bool(_ENTRY.match(stripped) or _GOOGLE_ENTRY.match(stripped))
        is_numpy_entry = bool(_NUMPY_ENTRY.match(stripped))
        continues = indent > first_indent if is_hanging else indent == previous_indent
        is_wrapped = is_hanging and _GOOGLE_ENTRY.match(stripped) and indent > first_indent
        starts_line = is_entry or is_numpy_entry or is_heading(stripped)
        if is_open and continues and (is_wrapped or not starts_line):
            out[-1] += ' ' + stripped
        else:
            out.append(' ' * indent + stripped)
            first_indent, is_hanging = indent, is_entry
            is_open = not (is_heading(stripped) or is_numpy_entry)
        previous_indent = indent
    return _drop_empty_sections('\n'.join(out).strip('\n'))


def _drop_empty_sections(text: str) -> str:
    """Remove legal notices and the headings of empty sections."""
    paragraphs = [part for part in text.split('\n\n') if not _LEGAL.match(part.strip())]
    kept: list[str] = []
    for paragraph in reversed(paragraphs):
        next_line = kept[-1].split('\n')[0] if kept else 'Notes'
        if not ('\n' not in paragraph and is_heading(paragraph) and is_heading(next_line)):
            kept.append(paragraph)
    return '\n\n'.join(reversed(kept))


def clean(doc: str) -> str:
    """Return a docstring as prose: one line per paragraph, without markup, code and examples."""
    text = '\n'.join(_prose_lines(doc))
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return _reflow(text.split('\n'))


_SENTENCE_END = re.compile(r'(?<=[.!?])["\')`]*(?=\s+[A-Z`"\'(\[*])')
_ABBREVIATION = re.compile(r'(\b(e\.g|i\.e|etc|vs|cf|al|resp|approx|Fig|Eq|No|St|[A-Z])\.)$')


def sentence_length(text: str) -> int:
    """Return the number of characters in the first sentence of a text."""
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: match.start()]):
            return match.end()
    return len(text)


_CALL_LINE = re.compile(r'[\w.]+\(.*\)( ?-+> ?.*)?$')


def summary(doc: str) -> str:
    """Return the first paragraph of a docstring on one line; '' if it does not start with prose."""
    for paragraph in clean(doc).split('\n\n')[:2]:
        line, _, rest = paragraph.partition('\n')
        if _CALL_LINE.match(line) and not rest:
            continue
        if line.startswith(' ') or is_heading(line) or _ENTRY.match(line):
            return ''
        return ' '.join(line.split())
    return ''


def normalize(text: str) -> str:
    """Return the lowercase words of a text; texts with equal words count as duplicates."""
    return ' '.join(re.findall(r'\w+', text.lower()))
