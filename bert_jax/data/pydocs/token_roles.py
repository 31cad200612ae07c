"""Tag the tokens of Python code with their syntactic roles."""

import ast
import io
import keyword
import tokenize
from collections.abc import Iterator

from bert_jax.data.pydocs.source import Span

MAX_TOKEN_CHARS = 40
TAGS = (
    'keyword',
    'function',  # name of a function being defined
    'class',  # name of a class being defined
    'parameter',  # name of a parameter being declared
    'argument',  # name of a keyword argument in a call
    'call',  # name of the function being called
    'attribute',
    'module',  # any name in an import statement
    'variable',  # any other name
    'string',
    'number',
    'operator',
    'comment',
)

_SKIPPED_TYPES = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# Python 3.12 and later split f-strings into several tokens, 3.14 and later t-strings.
_STRING_STARTS = {getattr(tokenize, f'{x}STRING_START', None) for x in 'FT'} - {None}
_STRING_ENDS = {getattr(tokenize, f'{x}STRING_END', None) for x in 'FT'} - {None}


def _tokenize(code: str) -> Iterator[tuple[int, str, Span]]:
    """Yield the type, text and position of each token; an f-string is one token in every Python version."""
    lines = code.split('\n')
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in _STRING_STARTS:
            start = start if depth else token.start
            depth += 1
        elif token.type in _STRING_ENDS:
            depth -= 1
            if not depth:
                end = token.end
                parts = lines[start[0] - 1 : end[0]]
                parts[-1] = parts[-1][: end[1]]
                parts[0] = parts[0][start[1] :]
                yield tokenize.STRING, '\n'.join(parts), start
        elif not depth and token.type not in _SKIPPED_TYPES:
            yield token.type, token.string, token.start


def _name_roles(tree: ast.AST) -> tuple[dict[Span, str], set[int]]:
    """Find the roles of names in a syntax tree.

    Returns:
      The role of the name at each (line, column), and the numbers of all lines with imports.
    """
    roles: dict[Span, str] = {}
    imports: set[int] = set()

    def attribute_position(node: ast.Attribute) -> Span:
        return node.end_lineno or 0, (node.end_col_offset or 0) - len(node.attr)

    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            roles[node.lineno, node.col_offset] = 'parameter'
        elif isinstance(node, ast.keyword) and node.arg:
            roles[node.lineno, node.col_offset] = 'argument'
        elif isinstance(node, ast.Attribute):
            roles.setdefault(attribute_position(node), 'attribute')
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            roles[node.func.lineno, node.func.col_offset] = 'call'
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            roles[attribute_position(node.func)] = 'call'
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(range(node.lineno, (node.end_lineno or 0) + 1))
    return roles, imports


def tag(code: str) -> list[tuple[str, str]]:
    """Return the (token, tag) pairs of ASCII source code.

    Raises:
      SyntaxError, ValueError, tokenize.TokenError: if the code does not parse.
    """
    roles, imports = _name_roles(ast.parse(code))
    kinds = {tokenize.STRING: 'string', tokenize.NUMBER: 'number', tokenize.COMMENT: 'comment'}
    tagged: list[tuple[str, str]] = []
    previous = ''
    for kind, text, position in _tokenize(code):
        if kind != tokenize.NAME:
            label = kinds.get(kind, 'operator')
        elif keyword.iskeyword(text):
            label = 'keyword'
        elif previous in ('def', 'class'):
            label = 'function' if previous == 'def' else 'class'
        else:
            label = roles.get(position, 'module' if position[0] in imports else 'variable')
        tagged.append((' '.join(text.split())[:MAX_TOKEN_CHARS].rstrip(), label))
        previous = text
    return tagged


def dedent(code: str) -> str:
    """Remove the indent of the first line from all lines; lines with a shorter indent stay unchanged."""
    width = len(code) - len(code.lstrip())
    lines = [line[width:] if not line[:width].strip() else line for line in code.split('\n')]
    return '\n'.join(lines) + '\n'
