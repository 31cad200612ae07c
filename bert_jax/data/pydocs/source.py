"""Reads Python source files as a corpus: documented items, signatures, snippets, clean prose.

Everything is parsed with `ast`; nothing that is read is ever imported or run. The files are those
of the standard library and of the installed distributions that this project depends on, so the
same environment always gives the same corpus.
"""

import ast
import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import hashlib
import importlib.metadata
import inspect
import io
import multiprocessing
import platform
import re
import sysconfig
import tokenize
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

DISTRIBUTIONS = (
    'jax',
    'flax',
    'optax',
    'orbax-checkpoint',
    'tensorflow-datasets',
    'ml-collections',
    'grain',
    'numpy',
    'scipy',
    'scikit-learn',
    'matplotlib',
    'tokenizers',
    'pytest',
)
SNIPPETS_PER_MODULE = 6
SNIPPET_LINES = 12
MAX_SIGNATURE = 240
MANY_FILES = 500  # are read by several processes
MAX_BYTES_PER_DOCSTRING = 5000

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """`def f(x: int = 3) -> str` and where its parts lie in that text."""

    text: str
    types: dict[str, Span]
    defaults: dict[str, Span]
    returns: Span | None


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One documented thing; `kind` is module, class, function, method or property."""

    kind: str
    name: str
    path: str
    doc: str
    signature: Signature | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """What the corpus keeps of one source file."""

    name: str
    items: tuple[Item, ...]
    snippets: tuple[str, ...]

    @property
    def split(self) -> str:
        """The one split that everything in this module belongs to: 90, 5 and 5 percent."""
        bucket = stable_hash(self.name) % 100
        return 'train' if bucket < 90 else 'validation' if bucket < 95 else 'test'


def stable_hash(text: str) -> int:
    """A hash that is the same in every process, unlike `hash`."""
    return zlib.crc32(text.encode('utf-8', 'surrogatepass'))


# Which files ----------------------------------------------------------------------------------


def installed(names: Iterable[str] = DISTRIBUTIONS) -> dict[str, importlib.metadata.Distribution]:
    """The named distributions and all that they require, where installed, sorted by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo, seen = list(names), set()
    while todo:
        name = re.sub(r'[-_.]+', '-', todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in found[name].requires or ():
            if 'extra' not in requirement.partition(';')[2]:
                todo += re.findall(r'^[\w.-]+', requirement)
    return dict(sorted(found.items()))


@functools.cache
def fingerprint() -> str:
    """A short name for the corpus: hashes the Python version and what `installed` finds."""
    versions = [f'{name}=={dist.version}' for name, dist in installed().items()]
    text = '\n'.join([platform.python_version(), *versions])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_TEST_FILE = re.compile(r'(^|/)(_*tests?|idle_test|test_[^/]*|[^/]*_tests?|conftest)(/|\.py$)')


def source_files(roots: Sequence[str] | None = None) -> list[tuple[str, Path]]:
    """Dotted module name and path of every source file, sorted by name; tests are left out.

    Args:
        roots: folders to read instead of the installed sources.
    """
    found: dict[str, Path] = {}

    def add(relative: Path, path: Path) -> None:
        parts = relative.with_suffix('').parts
        if _TEST_FILE.search(relative.as_posix()) or not all(p.isidentifier() for p in parts):
            return
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' and len(parts) > 1 else parts)
        found.setdefault(name, path)

    if roots is None:
        for dist in installed().values():
            for file in dist.files or ():
                if file.suffix == '.py':
                    add(Path(file), Path(str(dist.locate_file(file))))
    skipped = {'site-packages', 'dist-packages'}
    for root in map(Path, [sysconfig.get_path('stdlib')] if roots is None else roots):
        for path in root.rglob('*.py'):
            relative = path.relative_to(root)
            if not skipped.intersection(relative.parts):
                add(relative, path)
    return sorted(found.items())


# From a file to items -------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet_and_quick() -> Iterator[None]:
    """Silences the parser's warnings and stops the cycle collector: trees hold no cycles."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        if collecting:
            gc.enable()


@functools.lru_cache(maxsize=2)
def read_corpus(roots: tuple[str, ...] | None) -> tuple[Module, ...]:
    """All readable modules with any docstring, sorted by name; kept, as every config needs it."""
    files = source_files(roots)
    if len(files) < MANY_FILES:
        found = [_read(file) for file in files]
    else:
        with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')) as pool:
            found = [*pool.map(_read, files, chunksize=100)]
    return tuple(module for module in found if module is not None)


def _read(file: tuple[str, Path]) -> Module | None:
    """A module, or None if it is unreadable, undecodable or not this version's Python."""
    name, path = file
    with _quiet_and_quick():
        try:
            return read_module(name, path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, LookupError):
            return None


def read_module(name: str, data: bytes) -> Module | None:
    """Parses one file; None if it has too few docstrings, as tables and generated code do."""
    docstrings = (data.count(b'"""') + data.count(b"'''")) // 2
    if len(data) > docstrings * MAX_BYTES_PER_DOCSTRING:
        return None
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    text = data.decode(encoding).replace('\r\n', '\n').replace('\r', '\n')
    tree = ast.parse(text)
    items: list[Item] = []
    if doc := _docstring(tree):
        items.append(Item('module', name.rpartition('.')[2], name, doc))
    blocks: list[Span] = _import_blocks(tree)
    _visit(tree.body, name, False, items, blocks)
    lines = text.split('\n')
    snippets = {'\n'.join(lines[start:end]) for start, end in blocks}
    chosen = sorted(snippets, key=lambda s: (stable_hash(s), s))[:SNIPPETS_PER_MODULE]
    return Module(name, tuple(items), tuple(chosen))


def _docstring(node: ast.AST) -> str:
    doc = ast.get_docstring(node, clean=False)  # type: ignore[arg-type]
    return inspect.cleandoc(doc).strip() if doc else ''


def _visit(
    body: Sequence[ast.stmt], prefix: str, in_class: bool, items: list[Item], blocks: list[Span]
) -> None:
    """Collects the documented items of a module or class body and the lines of snippets."""
    for node in body:
        path = f'{prefix}.{getattr(node, "name", "")}'
        if isinstance(node, ast.ClassDef):
            blocks.append(_block(node))
            if doc := _docstring(node):
                items.append(Item('class', node.name, path, doc))
            _visit(node.body, path, True, items, blocks)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            blocks.append(_block(node))
            if doc := _docstring(node):
                kind = _function_kind(node) if in_class else 'function'
                items.append(Item(kind, node.name, path, doc, make_signature(node)))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ('body', 'orelse', 'finalbody'):
                _visit(getattr(node, part, ()), prefix, in_class, items, blocks)


def _function_kind(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    for decorator in node.decorator_list:
        if 'property' in ast.unparse(decorator).partition('(')[0].lower():
            return 'property'
    return 'method'


def _block(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Span:
    """The lines of a definition: its head and as many statements as a snippet may hold."""
    first = node.lineno - 1
    ends = [statement.end_lineno or 0 for statement in node.body]
    return first, max([end for end in ends if end - first <= SNIPPET_LINES], default=first)


def _import_blocks(tree: ast.Module) -> list[Span]:
    """The first run of adjacent import statements."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for first in imports[:1]:
        end = first.lineno - 1
        for node in imports:
            if node.lineno - 1 != end or (node.end_lineno or 0) - first.lineno >= SNIPPET_LINES:
                break
            end = node.end_lineno or 0
        return [(first.lineno - 1, end)]
    return []


def make_signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    """Writes a function's head on one line, noting where types and defaults stand.

    Types are left out where they would make it longer than `MAX_SIGNATURE`.
    """
    full = _write_signature(node, typed=True)
    return full if len(full.text) <= MAX_SIGNATURE else _write_signature(node, typed=False)


def _write_signature(node: ast.FunctionDef | ast.AsyncFunctionDef, typed: bool) -> Signature:
    text = f'def {node.name}('
    types: dict[str, Span] = {}
    defaults: dict[str, Span] = {}

    def put(piece: str) -> Span:
        nonlocal text
        text += piece
        return len(text) - len(piece), len(text)

    def put_argument(arg: ast.arg, default: ast.expr | None, stars: str = '') -> None:
        put(('' if text.endswith('(') else ', ') + stars + arg.arg)
        if typed and arg.annotation:
            put(': ')
            types[arg.arg] = put(_source(arg.annotation))
        if default is not None:
            put(' = ' if typed and arg.annotation else '=')
            defaults[arg.arg] = put(_source(default))

    args = node.args
    positional = [*args.posonlyargs, *args.args]
    missing = len(positional) - len(args.defaults)
    for i, arg in enumerate(positional):
        put_argument(arg, args.defaults[i - missing] if i >= missing else None)
        if args.posonlyargs and arg is args.posonlyargs[-1]:
            put(', /')
    if args.vararg:
        put_argument(args.vararg, None, '*')
    elif args.kwonlyargs:
        put('*' if text.endswith('(') else ', *')
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        put_argument(arg, default)
    if args.kwarg:
        put_argument(args.kwarg, None, '**')
    put(')')
    returns = None
    if typed and node.returns:
        put(' -> ')
        returns = put(_source(node.returns))
    return Signature(text, types, defaults, returns)


def _source(node: ast.expr) -> str:
    """An expression on one line; the quotes of a quoted annotation stay."""
    return node.id if isinstance(node, ast.Name) else ast.unparse(node).replace('\n', ' ')


# From a docstring to prose --------------------------------------------------------------------

PARAMETER_HEADS = frozenset({'Args', 'Arguments', 'Parameters', 'Params', 'Other Parameters'})
PARAMETER_HEADS |= {'Keyword Args', 'Keyword Arguments'}
RETURN_HEADS = frozenset({'Returns', 'Return', 'Yields', 'Yield'})
HEADS = PARAMETER_HEADS | RETURN_HEADS
HEADS |= {'Raises', 'Warns', 'Attributes', 'Methods', 'Example', 'Examples', 'Note', 'Notes'}
HEADS |= {'References', 'See Also', 'See also', 'Warnings', 'Usage', 'Receives'}
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


def is_head(line: str, heads: frozenset[str] = HEADS) -> bool:
    """Whether a line is the title of a docstring's section, such as `Args:`."""
    return line.strip().removesuffix(':') in heads


def prose_lines(doc: str) -> Iterator[str]:
    """A docstring's lines without examples, code, tables, underlines and directives."""
    skip_from: int | None = None  # Drop lines indented deeper than this.
    skip_paragraph = fenced = False
    previous, numpy_indent = '', -1  # `numpy_indent` is that of an underlined section.
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
                numpy_indent = indent if is_head(previous) else -1
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
    role, target = match[1].rpartition(':')[2], match[2]
    if titled := re.match(r'(.+?)\s*<[^<>]*>$', target, re.DOTALL):
        return titled[1]
    if target.startswith('~'):
        target = target.rpartition('.')[2].lstrip('~')
    target = target.lstrip('!')
    return f'`{target}`' if role in _CODE_ROLES else target


_INLINE = (
    (re.compile(r':([\w:+-]+):`([^`]+)`'), _plain_role),
    (re.compile(r'``([^`]+)``'), r'`\1`'),
    (re.compile(r'`([^`<]+?)\s*<[^<>`]*>`__?'), r'\1'),
    (re.compile(r'`([^`\n]+)`__?(?!\w)'), r'\1'),
    (re.compile(r'!?\[([^\]\n]+)\]\([^()\s]+\)'), r'\1'),
    (re.compile(r'(\[[#*]?\w*\])_(?!\w)'), r'\1'),
    (re.compile(r'`(?:~[\w.]*\.|~|\.)([\w.]+(?:\(\))?)`'), r'`\1`'),
    (re.compile(r'\*\*(?=\w)([^*\n]+)\*\*(?!\w)'), r'\1'),
    (re.compile(r'(?<![\w*(])\*(\w(?:[^*\n]*\w)?)\*(?![\w*])'), r'\1'),
    (re.compile(r'\\([*_`|<>])'), r'\1'),
    (re.compile(r'\\ '), ''),
)


def reflow(lines: Iterable[str]) -> str:
    """Joins wrapped lines; section heads, list items and parameter entries begin lines."""
    out: list[str] = []
    indent = first = 0  # Of the previous line, and of the first of those joined with it.
    hanging = False  # Whether the current line is an entry, whose next lines may lie deeper.
    open_line = False  # Whether the next line may join the current one.
    for line in lines:
        stripped = line.strip()
        if not stripped:
            open_line = False
            if out and out[-1]:
                out.append('')
            continue
        here = len(line) - len(line.lstrip())
        entry = bool(_ENTRY.match(stripped) or _GOOGLE_ENTRY.match(stripped))
        numpy_entry = bool(_NUMPY_ENTRY.match(stripped))
        deeper = here > first if hanging else here == indent
        wraps = hanging and _GOOGLE_ENTRY.match(stripped) and here > first
        if open_line and deeper and (wraps or not (entry or numpy_entry or is_head(stripped))):
            out[-1] += ' ' + stripped
        else:
            out.append(' ' * here + stripped)
            first, hanging = here, entry
            open_line = not (is_head(stripped) or numpy_entry)
        indent = here
    return _drop_empty('\n'.join(out).strip('\n'))


def _drop_empty(text: str) -> str:
    """Removes legal notices and the heads of sections of which nothing is left."""
    paragraphs = [part for part in text.split('\n\n') if not _LEGAL.match(part.strip())]
    kept: list[str] = []
    for paragraph in reversed(paragraphs):
        follower = kept[-1].split('\n')[0] if kept else 'Notes'
        if not ('\n' not in paragraph and is_head(paragraph) and is_head(follower)):
            kept.append(paragraph)
    return '\n\n'.join(reversed(kept))


def clean(doc: str) -> str:
    """A docstring as prose: unwrapped paragraphs, with markup, code and examples removed."""
    text = '\n'.join(prose_lines(doc))
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return reflow(text.split('\n'))


_SENTENCE_END = re.compile(r'(?<=[.!?])["\')`]*(?=\s+[A-Z`"\'(\[*])')
_ABBREVIATION = re.compile(r'(\b(e\.g|i\.e|etc|vs|cf|al|resp|approx|Fig|Eq|No|St|[A-Z])\.)$')


def sentence_length(text: str) -> int:
    """How many characters of `text` its first sentence takes."""
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: match.start()]):
            return match.end()
    return len(text)


_CALL_LINE = re.compile(r'[\w.]+\(.*\)( ?-+> ?.*)?$')


def summary(doc: str) -> str:
    """The first paragraph of prose, on one line; '' if the docstring opens with anything else."""
    for paragraph in clean(doc).split('\n\n')[:2]:
        line, _, rest = paragraph.partition('\n')
        if _CALL_LINE.match(line) and not rest:
            continue
        if line.startswith(' ') or is_head(line) or _ENTRY.match(line):
            return ''
        return ' '.join(line.split())
    return ''


def normalize(text: str) -> str:
    """The form in which two texts count as identical: words only, in lower case."""
    return ' '.join(re.findall(r'\w+', text.lower()))
