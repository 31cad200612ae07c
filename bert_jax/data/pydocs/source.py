"""Read Python source files as a corpus of documented items, signatures and snippets.

The files are parsed with `ast`, never imported or run. They belong to the standard library and to the installed
distributions that this project depends on, so the same environment always gives the same corpus.
"""

import ast
import concurrent.futures
import dataclasses
import functools
import gc
import hashlib
import importlib.metadata
import inspect
import io
import json
import multiprocessing
import os
import platform
import re
import sysconfig
import tokenize
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bert_jax.core.paths import cache_dir, write_atomic

VERSION = '1.1.0'  # of the examples; raise it when they change
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
MAX_SIGNATURE_CHARS = 240
MIN_PARALLEL_FILES = 500  # fewer files are read in this process
MAX_BYTES_PER_DOCSTRING = 5000

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """A function signature on one line, such as `def f(x: int = 3) -> str`.

    Attributes:
      text: the signature.
      types: span in `text` of each annotated parameter's type.
      defaults: span in `text` of each parameter's default.
      returns: span in `text` of the return type; None if there is none.
    """

    text: str
    types: dict[str, Span]
    defaults: dict[str, Span]
    returns: Span | None


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A documented module, class or function.

    Attributes:
      kind: 'module', 'class', 'function', 'method' or 'property'.
      name: name without its module or class.
      path: dotted path.
      doc: docstring, dedented.
      signature: signature of a function; None for modules and classes.
    """

    kind: str
    name: str
    path: str
    doc: str
    signature: Signature | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """The contents of one source file.

    Attributes:
      name: dotted name.
      items: its documented parts.
      snippets: short pieces of its code.
    """

    name: str
    items: tuple[Item, ...]
    snippets: tuple[str, ...]

    @property
    def split(self) -> str:
        """Split of all examples from this module: train (90 %), validation (5 %) or test (5 %)."""
        bucket = stable_hash(self.name) % 100
        return 'train' if bucket < 90 else 'validation' if bucket < 95 else 'test'


def stable_hash(text: str) -> int:
    """Return a hash that, unlike `hash`, is the same in every process."""
    return zlib.crc32(text.encode('utf-8', 'surrogatepass'))


def installed(names: Iterable[str] = DISTRIBUTIONS) -> dict[str, importlib.metadata.Distribution]:
    """Return the named distributions and their requirements, sorted by name; those not installed are skipped."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending, seen = list(names), set()
    while pending:
        name = re.sub(r'[-_.]+', '-', pending.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in found[name].requires or ():
            if 'extra' not in requirement.partition(';')[2]:
                pending += re.findall(r'^[\w.-]+', requirement)
    return dict(sorted(found.items()))


@functools.cache
def fingerprint() -> str:
    """Return a hash of the versions of Python and of the distributions from which the corpus is made."""
    versions = [f'{name}=={dist.version}' for name, dist in installed().items()]
    text = '\n'.join([platform.python_version(), *versions])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_TEST_FILE = re.compile(r'(^|/)(_*tests?|idle_test|test_[^/]*|[^/]*_tests?|conftest)(/|\.py$)')


def source_files(roots: Sequence[str | os.PathLike[str]] | None = None) -> list[tuple[str, Path]]:
    """Return the dotted name and the path of each source file, sorted by name; test files are skipped.

    Args:
      roots: folders to read instead of the installed sources.
    """
    files: list[tuple[Path, Path]] = []  # the path relative to its root, and the full path
    if roots is None:
        roots = [sysconfig.get_path('stdlib')]
        for dist in installed().values():
            files += [(Path(file), Path(str(dist.locate_file(file)))) for file in dist.files or ()]
    for root in map(Path, roots):
        files += [(path.relative_to(root), path) for path in root.rglob('*.py')]
    found: dict[str, Path] = {}
    for relative, path in files:
        parts = relative.with_suffix('').parts
        is_module = relative.suffix == '.py' and all(part.isidentifier() for part in parts)
        if is_module and not _TEST_FILE.search(relative.as_posix()):
            name = '.'.join(parts[:-1] if parts[-1] == '__init__' and len(parts) > 1 else parts)
            found.setdefault(name, path)
    return sorted(found.items())


def installed_corpus() -> tuple[Module, ...]:
    """Return the corpus of the installed sources; it is parsed once, and then read from a file in the cache folder."""
    file = cache_dir() / f'pydocs-{fingerprint()}' / f'modules-{VERSION}.json'
    if not file.is_file():
        write_atomic(file, to_json(read_corpus(source_files())))
    return from_json(file.read_text())


def to_json(corpus: Sequence[Module]) -> str:
    """Write a corpus as JSON: unlike a pickle, it runs nothing when it is read."""
    return json.dumps([dataclasses.asdict(module) for module in corpus])


def from_json(text: str) -> tuple[Module, ...]:
    """Read what `to_json` wrote."""

    def signature(value: dict[str, Any]) -> Signature:
        spans = {key: {k: tuple(span) for k, span in value[key].items()} for key in ('types', 'defaults')}
        return Signature(value['text'], **spans, returns=value['returns'] and tuple(value['returns']))

    def item(value: dict[str, Any]) -> Item:
        return Item(**value | {'signature': value['signature'] and signature(value['signature'])})

    return tuple(
        Module(module['name'], tuple(map(item, module['items'])), tuple(module['snippets']))
        for module in json.loads(text)
    )


def read_corpus(files: Sequence[tuple[str, Path]]) -> tuple[Module, ...]:
    """Return the modules that parse and have docstrings, in the order of `files` from `source_files`."""
    if len(files) < MIN_PARALLEL_FILES:
        modules = [_read_file(file) for file in files]
    else:
        context = multiprocessing.get_context('spawn')
        # Without garbage collection, parsing is faster. Syntax trees have no reference cycles.
        with concurrent.futures.ProcessPoolExecutor(mp_context=context, initializer=gc.disable) as pool:
            modules = [*pool.map(_read_file, files, chunksize=100)]
    return tuple(module for module in modules if module is not None)


def _read_file(file: tuple[str, Path]) -> Module | None:
    """Return the module in a file.

    Returns None if the file cannot be read or decoded, if this Python version cannot parse it, or
    if docstrings are rare in it.
    """
    name, path = file
    with warnings.catch_warnings(action='ignore'):
        try:
            return read_module(name, path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, LookupError):
            return None


def read_module(name: str, data: bytes) -> Module | None:
    """Parse the bytes of one file; return None if docstrings are rare in it, as in tables and generated code."""
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
    _collect_items(tree.body, name, False, items, blocks)
    lines = text.split('\n')
    snippets = {'\n'.join(lines[start:end]) for start, end in blocks}
    chosen = sorted(snippets, key=lambda s: (stable_hash(s), s))[:SNIPPETS_PER_MODULE]
    return Module(name, tuple(items), tuple(chosen))


def _docstring(node: ast.AST) -> str:
    doc = ast.get_docstring(node, clean=False)  # type: ignore[arg-type]
    return inspect.cleandoc(doc).strip() if doc else ''


def _collect_items(
    body: Sequence[ast.stmt], prefix: str, in_class: bool, items: list[Item], blocks: list[Span]
) -> None:
    """Collect the documented items and the code snippets in a module or class body.

    Appends the items to `items`, and the line span of each snippet to `blocks`.
    """
    for node in body:
        path = f'{prefix}.{getattr(node, "name", "")}'
        if isinstance(node, ast.ClassDef):
            blocks.append(_snippet_lines(node))
            if doc := _docstring(node):
                items.append(Item('class', node.name, path, doc))
            _collect_items(node.body, path, True, items, blocks)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            blocks.append(_snippet_lines(node))
            if doc := _docstring(node):
                kind = _function_kind(node) if in_class else 'function'
                items.append(Item(kind, node.name, path, doc, make_signature(node)))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ('body', 'orelse', 'finalbody'):
                _collect_items(getattr(node, part, ()), prefix, in_class, items, blocks)


def _function_kind(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    decorators = [ast.unparse(decorator).partition('(')[0].lower() for decorator in node.decorator_list]
    return 'property' if any('property' in name for name in decorators) else 'method'


def _snippet_lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Span:
    """Return the line span of a definition, cut after the last statement within `SNIPPET_LINES`."""
    first = node.lineno - 1
    ends = [statement.end_lineno or 0 for statement in node.body]
    return first, max([end for end in ends if end - first <= SNIPPET_LINES], default=first)


def _import_blocks(tree: ast.Module) -> list[Span]:
    """Return the line span of the first block of consecutive import statements, if any."""
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
    """Return the signature of a function, without types if these make it longer than `MAX_SIGNATURE_CHARS`."""
    full = _format_signature(node, with_types=True)
    return full if len(full.text) <= MAX_SIGNATURE_CHARS else _format_signature(node, with_types=False)


def _format_signature(node: ast.FunctionDef | ast.AsyncFunctionDef, with_types: bool) -> Signature:
    text = f'def {node.name}('
    types: dict[str, Span] = {}
    defaults: dict[str, Span] = {}

    def append(piece: str) -> Span:
        nonlocal text
        text += piece
        return len(text) - len(piece), len(text)

    def append_parameter(arg: ast.arg, default: ast.expr | None, stars: str = '') -> None:
        append(('' if text.endswith('(') else ', ') + stars + arg.arg)
        if with_types and arg.annotation:
            append(': ')
            types[arg.arg] = append(_format_expression(arg.annotation))
        if default is not None:
            append(' = ' if with_types and arg.annotation else '=')
            defaults[arg.arg] = append(_format_expression(default))

    args = node.args
    positional = [*args.posonlyargs, *args.args]
    first_default = len(positional) - len(args.defaults)
    for i, arg in enumerate(positional):
        append_parameter(arg, args.defaults[i - first_default] if i >= first_default else None)
        if args.posonlyargs and arg is args.posonlyargs[-1]:
            append(', /')
    if args.vararg:
        append_parameter(args.vararg, None, '*')
    elif args.kwonlyargs:
        append('*' if text.endswith('(') else ', *')
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        append_parameter(arg, default)
    if args.kwarg:
        append_parameter(args.kwarg, None, '**')
    append(')')
    returns = None
    if with_types and node.returns:
        append(' -> ')
        returns = append(_format_expression(node.returns))
    return Signature(text, types, defaults, returns)


def _format_expression(node: ast.expr) -> str:
    """Return the source of an expression on one line."""
    return node.id if isinstance(node, ast.Name) else ast.unparse(node).replace('\n', ' ')
