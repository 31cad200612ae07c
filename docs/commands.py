"""Argument parsers of all commands, captured without running the commands.

A command builds its parser inside `main()`. `capture` calls `main()` and stops at the point where the parser has done
its work, so that neither the commands nor the documentation repeat the flags.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import pathlib
import pkgutil
import sys
import types
import unittest.mock
from collections.abc import Iterator, Sequence

from bert_jax import bin as bin_package

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Enough arguments for a launcher to reach its parser.
_ANYTHING = ('--', '--config=configs/quickstart.py', '--workdir=runs/x')


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a command understood.

    Attributes:
      parser: parser of the command.
      flags: parsed flags; empty if the parser was captured before parsing.
      overrides: the `a.b=value` parts of `--config.a.b=value`.
      takes_overrides: whether the command accepts `--config.a.b=value`.
    """

    parser: argparse.ArgumentParser
    flags: argparse.Namespace
    overrides: tuple[str, ...]
    takes_overrides: bool


class _Stop(BaseException):
    def __init__(self, parser, flags, rest, strict):
        self.parser, self.flags, self.rest, self.strict = parser, flags, rest, strict


def names() -> list[str]:
    """Return all commands: modules of `bert_jax/bin`, then launchers with a `main()`."""
    modules = [f'bert_jax.bin.{m.name}' for m in pkgutil.iter_modules(bin_package.__path__)]
    launchers = sorted((ROOT / 'launch').glob('*.py'))
    return modules + [f'launch/{p.name}' for p in launchers if '\ndef main(' in p.read_text()]


def scripts() -> list[str]:
    """Return the shell scripts in `launch/`."""
    return [f'launch/{p.name}' for p in sorted((ROOT / 'launch').glob('*.sh'))]


def module(name: str) -> types.ModuleType:
    """Import the module of a command."""
    if not name.endswith('.py'):
        return importlib.import_module(name)
    unique = 'launcher_' + pathlib.Path(name).stem
    if unique not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, ROOT / name)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        with unittest.mock.patch.object(sys, 'path', [str(ROOT / 'launch'), *sys.path]):
            spec.loader.exec_module(loaded)
        sys.modules[unique] = loaded
    return sys.modules[unique]


def parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    return capture(name, None).parser


def capture(name: str, words: Sequence[str] | None) -> Parsed:
    """Call `main()` of a command up to the end of its argument parsing.

    Args:
      name: one of `names()`.
      words: command line after the command's name; None captures the parser before it parses.

    Raises:
      SystemExit: if the command rejects `words`; the reason is on standard error.
    """
    argv = [name, *(_ANYTHING if words is None else words)]
    with _intercepted(words is None), unittest.mock.patch.object(sys, 'argv', argv):
        try:
            module(name).main()
        except _Stop as stop:
            if words is None:
                return Parsed(stop.parser, argparse.Namespace(), (), not stop.strict)
            odd = [w for w in stop.rest if stop.strict or not w.startswith('--config.')]
            if odd:
                stop.parser.error(f'unrecognized arguments: {" ".join(odd)}')
            overrides = tuple(w.removeprefix('--config.') for w in stop.rest)
            return Parsed(stop.parser, stop.flags, overrides, not stop.strict)
    raise AssertionError(f'{name} returned without parsing its arguments')


@contextlib.contextmanager
def _intercepted(before: bool) -> Iterator[None]:
    """Make the first parser that is used raise `_Stop`, before or after it parses."""
    strict = False
    parse_args = argparse.ArgumentParser.parse_args
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def strictly(self, args=None, namespace=None):
        nonlocal strict
        strict = True
        return parse_args(self, args, namespace)

    def stopping(self, args=None, namespace=None):
        flags, rest = (argparse.Namespace(), []) if before else parse_known_args(self, args, namespace)
        raise _Stop(self, flags, rest, strict)

    with (
        unittest.mock.patch.object(argparse.ArgumentParser, 'parse_args', strictly),
        unittest.mock.patch.object(argparse.ArgumentParser, 'parse_known_args', stopping),
    ):
        yield
