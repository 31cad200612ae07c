"""Argument parsing, config overrides and one-line error reports, shared by all commands."""

import argparse
import errno
import logging
import math
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

from bert_jax.core import buckets, output
from bert_jax.core.errors import UserError, first_line
from bert_jax.core.settings import Section, format_sections


def make_parser(command: str, doc: str | None, *examples: str) -> argparse.ArgumentParser:
    """Create the argument parser of a command.

    Args:
      command: module of `bert_jax/bin`, or path of a launcher, such as 'launch/slurm.py'.
      doc: description that --help shows.
      *examples: arguments of example calls, with which --help ends.
    """
    program = f'python {command}' if command.endswith('.py') else f'python -m bert_jax.bin.{command}'
    return argparse.ArgumentParser(
        prog=program,
        description=doc,
        epilog='\n'.join(['examples:', *(_format_example(f'{program} {example}') for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _format_example(command: str) -> str:
    """Break a command into lines that end in backslashes, but not at spaces between double quotes."""
    unbroken = re.sub('"[^"]*"', lambda quoted: quoted[0].replace(' ', '\0'), command)
    lines = textwrap.wrap(unbroken, 76, break_long_words=False, break_on_hyphens=False)
    return '  ' + ' \\\n      '.join(lines).replace('\0', ' ')


class _Show(argparse.Action):
    """Store the value of `--show`, with which only `--config` is required."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, *_: Any
    ) -> None:
        namespace.show = value
        for action in parser._actions:
            action.required = action.dest == 'config'


def parse_args(
    parser: argparse.ArgumentParser,
    read_sections: Callable[[str, Sequence[str]], Sequence[Section]] | None = None,
    argv: Sequence[str] | None = None,
) -> tuple[argparse.Namespace, list[str]]:
    """Parse the flags of a command that accepts config overrides.

    With --show, print the config and exit.

    Args:
      parser: parser of the command.
      read_sections: function that reads the sections of the config, from the value of --config and the overrides; None if
        the command has no flag --show.
      argv: arguments of the command; by default those of the process.

    Returns:
      The flags, and `a.b=value` for each argument `--config.a.b=value`.
    """
    override = '--config.KEY=VALUE overrides a key of the config'
    if read_sections:
        override += ', --show lists all keys'
        parser.add_argument(
            '--show',
            action=_Show,
            nargs='?',
            const='',
            metavar='SECTION',
            help='print the keys of the config, or of one section, with values, origins, types and meanings, and exit',
        )
    parser.epilog = f'{override}.\n\n{parser.epilog or ""}'
    argv = sys.argv[1:] if argv is None else argv
    # Overrides come first, because --show would take one with spaces as its value.
    flags, rest = parser.parse_known_args(sorted(argv, key=lambda word: not word.startswith('--config.')))
    for name in ('config', 'workdir', 'checkpoint', 'out', 'rows'):
        if vars(flags).get(name) == '' != parser.get_default(name):  # such as --workdir=$UNSET_VARIABLE
            parser.error(f'--{name} is empty; set it to a value')
    if unknown := [argument for argument in rest if not argument.startswith('--config.')]:
        parser.error(f'unknown argument {unknown[0]!r}; set config values with --config.KEY=VALUE')
    overrides = [argument.removeprefix('--config.') for argument in rest]
    if read_sections and flags.show is not None:
        width = shutil.get_terminal_size((100, 24)).columns
        print(*format_sections(read_sections(flags.config, overrides), flags.show, width), sep='\n', end='')
        parser.exit()
    return flags, overrides


def parse_seed(text: str) -> int:
    """Parse the value of `--seed`; used as the `type` of the argparse argument."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f'{text!r} is not an integer from 0 to {2**32 - 1}')
    return int(text)


def list_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return a parser of names that are separated by commas."""

    def parse(text: str) -> list[str]:
        names = text.split(',')
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f'{name!r} is not one of {", ".join(known)}')
        return names

    return parse


def check_not_empty(parser: argparse.ArgumentParser, flags: argparse.Namespace, **names: str) -> None:
    """Exit with an error if a flag is empty, such as --to=$UNSET_VARIABLE.

    Args:
      parser: parser of the flags.
      flags: parsed flags; those without text are not checked.
      **names: names on the command line of flags that are stored under other names.
    """
    for name, value in vars(flags).items():
        if value == '' or (isinstance(value, list) and '' in value):
            parser.error(f'--{names.get(name, name)} is empty; set it to a value')


def check_minimum(
    parser: argparse.ArgumentParser, flags: argparse.Namespace, name: str, minimum: float
) -> None:
    """Exit with an error of the parser if the flag `name` is less than `minimum`, or not finite."""
    value = vars(flags)[name]
    if not minimum <= value < math.inf:
        parser.error(f'--{name}={value:g} must be at least {minimum:g}')


def add_checkpoint_flag(parser: argparse.ArgumentParser, run: str) -> None:
    """Add the required flag `--checkpoint`; `run` is the kind of run, such as 'a pretraining run'."""
    help_text = f'--workdir of {run}, or the folder of one of its checkpoints'
    parser.add_argument('--checkpoint', required=True, help=help_text)


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags with which this process joins the others of a job; not needed on SLURM and TPU VMs."""
    parser.add_argument(
        '--coordinator', default='', metavar='HOST:PORT', help='address at which process 0 listens'
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=0,
        metavar='N',
        help='number of processes in the job; 1 runs this process alone, also inside a job of a cluster',
    )
    parser.add_argument(
        '--process', type=int, default=-1, metavar='I', help='index of this process, counted from 0'
    )


def eval_parser(task: str, doc: str | None, *examples: str) -> argparse.ArgumentParser:
    """Create the argument parser of the command `eval_{task}`; see `make_parser`."""
    parser = make_parser(f'eval_{task}', doc, *examples)
    parser.add_argument(
        '--config', required=True, help='config file of the task, which names the data to score'
    )
    add_checkpoint_flag(parser, 'a training run')
    parser.add_argument('--out', required=True, help='JSON file for the scores')
    parser.add_argument(
        '--watch', action='store_true', help='score each new checkpoint of a running job until the job ends'
    )
    parser.add_argument(
        '--poll', type=float, default=10, help='with --watch: seconds between checks for a new checkpoint'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=3600,
        help='with --watch: stop if no new checkpoint appears for this many seconds',
    )
    add_process_flags(parser)
    return parser


def add_text_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select the texts on which a study compares languages."""
    parser.add_argument(
        '--text',
        action='append',
        default=[],
        metavar='NAME=SOURCE',
        help='name and text of one language; repeat the flag for each language. With --parallel, SOURCE is a field of '
        'the corpus. Default: all text fields of the corpus, or without --parallel the validation documents of '
        'pretraining',
    )
    parser.add_argument(
        '--parallel',
        default='',
        help='parallel corpus: name of a TFDS data set, or path of files such as data/{split}.jsonl',
    )
    parser.add_argument('--split', default='test', help='split of the --parallel corpus to use')
    parser.add_argument('--limit', type=int, default=1000, help='maximum number of sentences per language')


def parse_texts(values: Sequence[str]) -> dict[str, str]:
    """Parse the values of `--text`, each NAME=SOURCE, and return the sources by name."""
    sources = {}
    for value in values:
        name, equals, source = value.partition('=')
        if not (name and equals and source):
            raise UserError(
                f'--text={value!r} is not of the form NAME=SOURCE. Write, for example, --text=de=FILE.'
            )
        if name in sources:
            raise UserError(
                f'--text is set twice for {name!r}. Set it to one source, or to a glob of several files.'
            )
        sources[name] = source
    return sources


def format_table(lines: Sequence[Sequence[str]]) -> str:
    """Format lines of cells as a text table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def parse_numbers(text: str, flag: str) -> list[float]:
    """Parse distinct finite numbers separated by commas."""
    try:
        numbers = [float(part) for part in text.split(',')]
    except ValueError as e:
        raise UserError(f'{flag}={text!r} is not a list of numbers. Separate numbers with commas.') from e
    if invalid := [x for x in numbers if not math.isfinite(x)]:
        raise UserError(f'{flag}={text!r} contains {invalid[0]}. Use finite numbers.')
    if repeated := [x for x in numbers if numbers.count(x) > 1]:
        raise UserError(f'{flag}={text!r} contains {repeated[0]:g} twice. List each number once.')
    return numbers


def split_options(text: str, flag: str) -> list[str]:
    """Split options that are passed on to another program, as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as e:
        raise UserError(f'{flag}={text!r} cannot be split into options ({e}). Fix its quotes.') from e


def check_writable(path: pathlib.Path, flag: str) -> None:
    """Raise UserError if a file cannot be created at `path`, whose folder may be missing."""
    if buckets.is_in_bucket(path):
        buckets.check_writable(path, flag)
        return
    if re.match('(gs|s3):/', str(path)):
        raise UserError(f'{flag} must be a local path, not {str(path)!r}. Choose another {flag}.')
    try:
        parent = next(p for p in path.absolute().parents if p.exists())
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=parent):  # tells more than the permissions, such as on a full disk
            pass
    except OSError as e:
        raise UserError(f'{str(path)!r} cannot be written ({e.strerror}). Choose another {flag}.') from e


def check_output(path: pathlib.Path, flag: str) -> None:
    """Raise UserError if a command cannot write its result to `path`, or would overwrite a file of a run."""
    if path.name in ('config.json', 'metrics.jsonl') and path.exists():
        raise UserError(f'{str(path)!r} is a file of a training run. Choose another {flag}.')
    check_writable(path, flag)


def run(main: Callable[[], int | None], stops_without_reader: bool = False) -> None:
    """Run the main function of a command and exit with its status; report errors in one line.

    Args:
      main: the main function, which returns the exit status; None means status 0.
      stops_without_reader: whether to end the process once nobody reads its standard output
        anymore. Set it for commands that only print their result. See `output.protect_streams`.
    """
    output.protect_streams(stops_without_reader)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr, force=True)
    # With --verbose: the debug messages of bert_jax, which logs to the root logger, but not those of its libraries.
    logging.getLogger().handlers[0].addFilter(lambda r: r.levelno > logging.DEBUG or r.name == 'root')
    of_buckets = ('aiobotocore', 'botocore', 'fsspec', 'gcsfs', 's3fs')
    for library in ('apache_beam', 'grain', 'jax', 'matplotlib', 'tensorflow_datasets', *of_buckets):
        logging.getLogger(library).setLevel(logging.ERROR)
    for library in ('absl', 'asyncio', 'orbax'):  # they log tracebacks of errors that are raised here as well
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # After an error of a library, such as a full disk, its callbacks, coroutines and threads may fail as well.
    sys.excepthook = _log_secondary_error
    sys.unraisablehook = lambda args: _log_secondary_error(args.exc_type, args.exc_value)
    threading.excepthook = lambda args: _log_secondary_error(args.exc_type, args.exc_value)
    warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
    # A background process ignores Ctrl-C, which stays as it is.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        sys.argv = [_decode(argument) for argument in sys.argv]
        status = main()
        sys.stdout.flush()
    except BaseException as e:
        if (status := report_error(e)) is None:
            sys.excepthook = sys.__excepthook__
            raise
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(status)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """Raise KeyboardInterrupt. During an import, end the process instead, since extension modules may crash."""
    if '<frozen importlib._bootstrap>' in {f.f_code.co_filename for f, _ in traceback.walk_stack(frame)}:
        os._exit(report_error(KeyboardInterrupt()) or 0)
    raise KeyboardInterrupt


def _log_secondary_error(kind: type[BaseException], e: BaseException | None, *_: Any) -> None:
    """Log an error that nothing can catch. The error that caused it is raised in the main thread."""
    logging.debug('error outside the main thread: %s: %s', kind.__name__, e)


def _decode(argument: str) -> str:
    """Decode an argument that Python could not decode, because the encoding of the environment is ASCII."""
    if not re.search('[\udc80-\udcff]', argument):
        return argument
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError as e:
        raise UserError(f'The argument {argument!r} is not UTF-8. Use a terminal with UTF-8 encoding.') from e


# Messages for limits of the system, by a pattern of the errors of Python and of its libraries.
_LIMITS = {
    'No space left on device|Disk quota exceeded': (
        'the disk is full. Free some space and run the command again; earlier checkpoints are intact.'
    ),
    'File too large': (
        'a file is larger than the limit for this process. Raise it with `ulimit -f unlimited`, or write to another disk; '
        'earlier checkpoints are intact.'
    ),
    'Too many open files': (
        'too many files are open for this process. Raise the limit with `ulimit -n 4096` and run the command again; '
        'earlier checkpoints are intact.'
    ),
}


def report_error(e: BaseException, where: str = '') -> int | None:
    """Print the message of an error that the user can fix.

    Args:
      e: the error.
      where: text to insert after 'error', such as ' in process 1'.

    Returns:
      The exit status, or None if the user cannot fix the error; then nothing is printed.
    """
    if isinstance(e, KeyboardInterrupt):
        print('interrupted', file=sys.stderr, flush=True)
        return 130
    if isinstance(e, UserError):
        message = str(e)
    elif isinstance(e, ModuleNotFoundError) and not f'{e.name}.'.startswith('bert_jax.'):
        message = (
            f'{e.name} is not installed in this Python. '
            '`source launch/env.sh` creates and activates an environment that has it.'
        )
    elif limit := next((text for pattern, text in _LIMITS.items() if re.search(pattern, str(e))), ''):
        message = limit
    elif isinstance(e, OSError) and e.filename is not None:
        message = f'{e.filename!r} cannot be used ({e.strerror}). Choose another path.'
    elif isinstance(e, UnicodeEncodeError) and e.encoding != 'utf-8':
        message = f'{e.object!r} cannot be encoded as {e.encoding}. Set PYTHONUTF8=1, or a locale with UTF-8.'
    elif isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e):
        message = (
            f'out of memory ({first_line(e)}). Use smaller batches or shorter rows (train.batch_size, data.length), '
            'train.accumulation_steps=4, model.remat=full, or mesh.fsdp over more devices.'
        )
    else:
        return None
    print(f'error{where}: {message}', file=sys.stderr, flush=True)
    return e.exit_status if isinstance(e, UserError) else 1
