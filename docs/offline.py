"""Fail the build of the documentation if a page would fetch a file from another server when somebody reads it."""

import pathlib
import re

from sphinx.errors import SphinxError

# What a browser fetches by itself. Links that a reader follows, <a href=...>, may lead anywhere.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|icon|preconnect))[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|url\(["']?(?:https?:)?//[^)]+|@import\s+["'](?:https?:)?//[^"']+""",
    re.IGNORECASE,
)


def fetched(folder: pathlib.Path) -> list[str]:
    """Return `FILE: ADDRESS` for everything that the pages and style sheets in `folder` fetch elsewhere."""
    files = sorted(path for path in folder.rglob('*') if path.suffix in ('.html', '.css'))
    return [f'{f.relative_to(folder)}: {m[0][:200]}' for f in files for m in _FETCHED.finditer(f.read_text())]


def check(app, exception) -> None:
    """Raise SphinxError if a page depends on another server."""
    if exception is None and app.builder.format == 'html' and (found := fetched(pathlib.Path(app.outdir))):
        raise SphinxError('The pages must work offline, but they fetch:\n' + '\n'.join(found))


def setup(app) -> None:
    app.connect('build-finished', check)
