"""Argument parsers of all commands, captured without running the commands.

A command builds its parser inside `main()`. `capture` calls `main()` and stops at the point where the parser would do
its work, so that neither the commands nor the documentation repeat the flags.
"""

import argparse
import importlib
import pathlib
import pkgutil
import sys
import types
import unittest.mock
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bert_jax import bin as bin_package

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Enough arguments for a launcher to reach its parser.
_ANYTHING = ('--', '--config=configs/quickstart.py', '--workdir=runs/x')


class Parsed(NamedTuple):
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
    """Raised by a command instead of parsing its arguments."""


def names() -> list[str]:
    """Return all commands: modules of `bert_jax/bin`, then launchers with a `main()`."""
    modules = [f'bert_jax.bin.{m.name}' for m in pkgutil.iter_modules(bin_package.__path__)]
    launchers = sorted((ROOT / 'launch').glob('*.py'))
    return modules + [f'launch/{p.name}' for p in launchers if '\ndef main(' in p.read_text()]


def module(name: str) -> types.ModuleType:
    """Import the module of a command."""
    if not name.endswith('.py'):
        return importlib.import_module(name)
    with unittest.mock.patch.object(sys, 'path', [str(ROOT / 'launch'), *sys.path]):
        return importlib.import_module(pathlib.Path(name).stem)


def capture(name: str, words: Sequence[str] | None) -> Parsed:
    """Call `main()` of a command up to its argument parsing.

    Args:
      name: one of `names()`.
      words: command line after the command's name, to be parsed; None parses nothing.

    Raises:
      SystemExit: if the command rejects `words`; the reason is on standard error.
    """
    with (
        unittest.mock.patch.object(sys, 'argv', [name, *(_ANYTHING if words is None else words)]),
        unittest.mock.patch.object(argparse.ArgumentParser, 'parse_args', _interceptor(False)),
        unittest.mock.patch.object(argparse.ArgumentParser, 'parse_known_args', _interceptor(True)),
    ):
        try:
            module(name).main()
        except _Stop as stop:
            parser, arguments, takes_overrides = stop.args
        else:
            raise AssertionError(f'{name} returned without parsing its arguments')
    if words is None:
        return Parsed(parser, argparse.Namespace(), (), takes_overrides)
    flags, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if not (takes_overrides and word.startswith('--config.'))]:
        parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    return Parsed(parser, flags, tuple(word.removeprefix('--config.') for word in rest), takes_overrides)


def _interceptor(takes_overrides: bool) -> Callable[..., Any]:
    """Make a replacement of a parsing method, which raises `_Stop` with the parser and the arguments to parse."""

    def stop(parser, args=None, namespace=None):
        raise _Stop(parser, sys.argv[1:] if args is None else args, takes_overrides)

    return stop
