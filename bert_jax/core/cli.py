"""What all doors share: arguments, config overrides, and errors as one sentence."""

import argparse
import logging
import math
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Sequence

from bert_jax.core.errors import UserError, first_line


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a door's flags; returns them and the `a.b=value` parts of `--config.a.b=value`."""
    known, rest = parser.parse_known_args(argv)
    for name in ('config', 'workdir', 'checkpoint', 'out', 'rows'):
        if vars(known).get(name) == '' != parser.get_default(name):  # as of a shell variable that is not set
            parser.error(f'--{name} is empty')
    overrides = []
    for word in rest:
        if not word.startswith('--config.'):
            parser.error(f'unknown argument {word!r}; config values are set by --config.KEY=VALUE')
        overrides.append(word.removeprefix('--config.'))
    return known, overrides


def seed(text: str) -> int:
    """The type of a flag --seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 0 to {2**32 - 1}')
    return int(text)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The flags that make a process one of several; SLURM and TPU VMs need none of them."""
    parser.add_argument(
        '--coordinator', default='', metavar='HOST:PORT', help='where process 0 of several listens'
    )
    parser.add_argument('--processes', type=int, default=0, metavar='N', help='how many processes there are')
    parser.add_argument('--process', type=int, default=-1, metavar='I', help='which of them this is, from 0')


def eval_parser(task: str, doc: str | None) -> argparse.ArgumentParser:
    """The flags that all eval binaries share."""
    parser = argparse.ArgumentParser(prog=f'python -m bert_jax.bin.eval_{task}', description=doc)
    parser.add_argument('--config', required=True, help='the config of the task: which data to score')
    parser.add_argument(
        '--checkpoint', required=True, help='a --workdir that was trained, or one of its steps'
    )
    parser.add_argument('--out', required=True, help='JSON file for the scores')
    parser.add_argument(
        '--watch', action='store_true', help='score each new checkpoint of a running job to its end'
    )
    parser.add_argument('--poll', type=float, default=10, help='with --watch: seconds between looks')
    parser.add_argument(
        '--timeout', type=float, default=3600, help='with --watch: give up after so many idle seconds'
    )
    add_processes(parser)
    return parser


def add_texts(parser: argparse.ArgumentParser) -> None:
    """The flags that say in which texts a study reads its languages."""
    parser.add_argument(
        '--text',
        action='append',
        default=[],
        metavar='NAME=SOURCE',
        help='a text of a language, once for each (with --parallel: the field that has it); without, what was held '
        'out in pretraining',
    )
    parser.add_argument(
        '--parallel', default='', help='data with translations: a TFDS name, or {split}.jsonl'
    )
    parser.add_argument('--split', default='test', help='of --parallel')
    parser.add_argument('--limit', type=int, default=1000, help='how many sentences of each language')


def texts(given: Sequence[str]) -> dict[str, str]:
    """The values of --text, by name."""
    found = {}
    for text in given:
        name, equals, source = text.partition('=')
        if not (name and equals and source):
            raise UserError(f'--text={text!r} names no language: write --text=de=FILE.')
        if name in found:
            raise UserError(f'--text is given twice for {name!r}: name one source, or a glob of several.')
        found[name] = source
    return found


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells under one another."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def numbers(text: str, flag: str) -> list[float]:
    """Finite numbers with commas between them, each once."""
    try:
        found = [float(part) for part in text.split(',')]
    except ValueError as e:
        raise UserError(f'{flag}={text!r} must be numbers with commas between them.') from e
    if odd := [x for x in found if not math.isfinite(x)]:
        raise UserError(f'{flag}={text!r} has {odd[0]}: give finite numbers.')
    if twice := [x for x in found if found.count(x) > 1]:
        raise UserError(f'{flag}={text!r} has {twice[0]:g} twice: give each number once.')
    return found


def words(text: str, flag: str) -> list[str]:
    """Options for another program, split as a shell does."""
    try:
        return shlex.split(text)
    except ValueError as e:
        raise UserError(f'{flag}={text!r} does not split into options ({e}): mend its quotes.') from e


def check_writable(path: pathlib.Path, flag: str) -> None:
    """Raises UserError if a file cannot be written at `path`."""
    parent = next(p for p in path.absolute().parents if p.exists())
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f'{str(path)!r} cannot be written: choose another {flag}.')


def check_output(path: pathlib.Path, flag: str) -> None:
    """Raises UserError if a door cannot write its result to `path`, or should not since a run has written it."""
    if path.name in ('config.json', 'metrics.jsonl') and path.exists():
        raise UserError(f'{str(path)!r} belongs to a run: choose another {flag}.')
    check_writable(path, flag)


def run(main: Callable[[], int | None]) -> None:
    """Runs a door and exits with its status; a `UserError` becomes one sentence and status 1."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr, force=True)
    for noisy in ('apache_beam', 'jax', 'grain', 'tensorflow_datasets'):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    for noisy in ('absl', 'asyncio', 'orbax'):  # tracebacks of threads, of what is raised here as well
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        if odd := [word for word in sys.argv if re.search('[\udc80-\udcff]', word)]:
            raise UserError(f'{odd[0]!r} is not UTF-8: write it in the encoding of the terminal, UTF-8.')
        status = main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except BaseException as e:
        if (status := explain(e)) is None:
            raise
    sys.exit(status)


def explain(e: BaseException, where: str = '') -> int | None:
    """Prints the sentence of an error that a user can mend, and returns its exit status; of another None.

    Args:
      e: the error.
      where: ' in process 1', if that is of interest.
    """
    said, status = None, 1
    if isinstance(e, KeyboardInterrupt):
        print('interrupted', file=sys.stderr, flush=True)
        return 130
    if isinstance(e, UserError):
        said, status = str(e), e.status
    elif isinstance(e, ModuleNotFoundError) and not f'{e.name}.'.startswith('bert_jax.'):
        said = f'{e.name} is not installed in this Python: `source launch/env.sh` makes and enters one that has it.'
    elif re.search('No space left on device|Disk quota exceeded', str(e)):
        said = 'the disk is full: make room and start again; what was saved before is whole.'
    elif isinstance(e, OSError) and e.filename is not None:
        said = f'{e.filename!r} cannot be used ({e.strerror}): choose another path.'
    elif isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e):
        said = (
            f'memory is full ({first_line(e)}): take a smaller batch or shorter texts (train.batch_size, data.length), '
            'train.accumulate=4, model.remat=full, or mesh.fsdp over more devices.'
        )
    if said is None:
        return None
    print(f'error{where}: {said}', file=sys.stderr, flush=True)
    return status
