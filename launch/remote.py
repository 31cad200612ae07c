"""Helper functions of the launchers for remote machines: run or print commands, archive and install the project."""

import argparse
import glob
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from bert_jax.core import buckets, cli
from bert_jax.core.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARCHIVE = 'bert_jax.tar.gz'
SHIPPED = ['bert_jax', 'configs', 'launch', 'requirements.txt', 'pyproject.toml', 'README.md']


class Runner:
    """Runs commands, or only prints them.

    Args:
      dry_run: whether to only print the commands.
    """

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def __call__(self, *command: str, may_fail: bool = False) -> int:
        """Run a command and wait for it.

        Returns:
          Its exit status; 0 in a dry run.

        Raises:
          SystemExit: if the command fails, unless `may_fail`.
        """
        print(f'+ {shlex.join(command)}', file=sys.stdout if self.dry_run else sys.stderr, flush=True)
        if self.dry_run:
            return 0
        try:
            status = subprocess.run(command).returncode
        except FileNotFoundError:
            sys.exit(f'error: {command[0]} was not found. Install it, or use --print to see all commands.')
        if status and not may_fail:
            sys.exit(f'error: {command[0]} exited with status {status}. See its output above.')
        return status

    def output(self, *command: str) -> str:
        """Run a command and return its output; empty in a dry run."""
        if self.dry_run:
            print(f'+ {shlex.join(command)}', flush=True)
            return ''
        return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_parser(script: str, doc: str | None, *examples: str) -> argparse.ArgumentParser:
    """Create the argument parser of a launcher, with the flags that all of them have; see `cli.make_parser`."""
    parser = cli.make_parser(f'launch/{script}', doc, *examples)
    training_help = _training_parser().format_help().partition('\n\n')[2]  # without its usage
    parser.epilog = f'{training_help}\n{parser.epilog}'
    parser.add_argument(
        '--send',
        action='append',
        default=[],
        metavar='PATH',
        help='file, folder or glob to copy to the same path on each machine, such as data or a checkpoint; a relative path '
        'is below the project; may be repeated',
    )
    parser.add_argument(
        '--fetch', default='', metavar='DIR', help='copy --workdir to this local folder afterwards'
    )
    parser.add_argument('--print', action='store_true', help='print all commands without running them')
    return parser


def _training_parser() -> argparse.ArgumentParser:
    """Create the parser of the arguments after `--`."""
    usage = '... -- --config=configs/X.py --workdir=DIR'
    parser = argparse.ArgumentParser(prog='... --', usage=usage, add_help=False)
    description = 'Also --config.KEY=VALUE, which overrides a key of the config.'
    group = parser.add_argument_group('arguments of the training, after --', description)
    group.add_argument(
        '--config', required=True, help='config file in configs/, with :arg if it takes an argument'
    )
    group.add_argument('--workdir', required=True, help='working directory on the machine')
    group.add_argument('--verbose', action='store_true', help='log debug messages')
    return parser


def make_archive(run: Runner, folder: pathlib.Path, sent: Sequence[str]) -> pathlib.Path:
    """Write the project files of the working tree and the paths `sent` to an archive in `folder`; return its path."""
    file = folder / ARCHIVE
    paths = [path for pattern in sent for path in _find(pattern)]
    # -P keeps absolute paths, and -h copies the files that symbolic links refer to.
    run('tar', '-czPhf', str(file), '--exclude=__pycache__', '-C', str(ROOT), *SHIPPED, *paths)
    return file


def _find(pattern: str, splits: Sequence[str] = ('*',)) -> list[str]:
    """Return the paths that match a glob, in which `{split}` stands for the names of these splits."""
    pattern = os.path.expanduser(pattern)
    if (ROOT / pattern).exists():
        return [pattern]
    patterns = {pattern.replace('{split}', split) for split in splits}
    return sorted(file for p in patterns for file in glob.glob(p, root_dir=ROOT, recursive=True))


def install_command(jax_extra: str, *packages: str) -> str:
    """The shell command that unpacks the archive and installs the project.

    Args:
      jax_extra: extra of the jax package to install, 'tpu' or 'cuda13'.
      *packages: further packages to install.
    """
    python = (
        'PYTHON=$(command -v python3.12 || command -v python3.11) || '
        '{ python3 -m pip install -q --user uv && python3 -m uv python install -q 3.12 && '
        'PYTHON=$(python3 -m uv python find 3.12); }'
    )
    jax = f'python -m pip install -q "jax[{jax_extra}]==$(python -c \'import jax; print(jax.__version__)\')"'
    jax = ' '.join([jax, *packages])
    unpack = f'mkdir -p bert_jax && tar -xzPf {ARCHIVE} -C bert_jax && cd bert_jax'
    return f'{unpack} && {{ {python}; }} && export PYTHON && source launch/env.sh && {jax}'


def train_command(arguments: Sequence[str]) -> str:
    """The shell command that starts the training with these arguments on the remote machine."""
    return f'cd bert_jax && source launch/env.sh && exec python -m bert_jax.bin.train {shlex.join(arguments)}'


def run(main: Callable[[], int | None], interrupt_message: str) -> None:
    """Run the main function of a launcher with `cli.run`; on Ctrl-C, print `interrupt_message` and exit."""

    def launcher() -> int | None:
        try:
            return main()
        except KeyboardInterrupt:
            sys.exit(interrupt_message)

    cli.run(launcher)


def validate(arguments: Sequence[str], sent: Sequence[str]) -> str:
    """Validate the training arguments before any machine is used, and print which of its inputs are not sent.

    Args:
      arguments: arguments of the training.
      sent: values of --send.

    Returns:
      The working directory, in a bucket or relative to the home directory of the remote user.

    Raises:
      UserError: for invalid settings, a value of --send that does not exist, or a config file that is not sent.
      SystemExit: for missing or unknown arguments.
    """
    flags, overrides = cli.parse_args(_training_parser(), argv=arguments)

    from bert_jax.experiments import jobs
    from bert_jax.train import experiment

    if missing := [pattern for pattern in sent if not _find(pattern)]:
        raise UserError(f'--send={missing[0]} does not exist. Set it to a file, a folder or a glob.')
    path, colon, arg = flags.config.partition(':')
    if not _is_sent(_find(path) or [path], sent):
        raise UserError(
            f'--config={path} is outside the project, and only the project is copied to the machine. Move the file into '
            f'configs/, or add --send={path}.'
        )
    spec = f'{ROOT / path}{colon}{arg}'
    jobs.validate([jobs.Job(pathlib.Path(flags.workdir), spec, tuple(overrides))])
    if notes := [*_describe_unsent(experiment.read(spec, overrides), sent)]:
        print(
            f'Not sent, but needed on the machine ({", ".join(SHIPPED[:3])} are sent):',
            *notes,
            sep='\n  ',
            file=sys.stderr,
        )
    if buckets.is_in_bucket(flags.workdir):
        return flags.workdir
    return str(pathlib.PurePosixPath('bert_jax') / flags.workdir)


def _is_sent(paths: Sequence[str], sent: Sequence[str]) -> bool:
    """Return whether all paths are copied to the machine: they are in the project or in a value of --send."""
    # An absolute path in this project is another one on the machine, so it is not made relative.
    parents = [os.path.normpath(parent) for pattern in (*SHIPPED, *sent) for parent in _find(pattern)]
    return all(
        any(pathlib.PurePath(os.path.normpath(path)).is_relative_to(parent) for parent in parents)
        for path in paths
    )


def _describe_unsent(experiment: Any, sent: Sequence[str]) -> Iterator[str]:
    """Yield a line for each input of a training that is not sent, with what to do."""
    from bert_jax.data import formats, segmentation, sources

    data, segmenter = experiment.data, getattr(experiment.task, 'segmenter', '')
    inputs = {
        'init.checkpoint': [experiment.init.checkpoint],
        'tokenizer.path': [experiment.tokenizer.path],
        'task.segmenter': [segmenter] if segmenter != segmentation.JIEBA else [],
        'data.rows_dir': _find(getattr(data, 'rows_dir', '')),  # the training prepares missing rows
        'data.source': [getattr(data, 'source', '')],
        'data.sources': [sources.parse_source(source)[1] for source in getattr(data, 'sources', ())],
    }
    splits = [getattr(data, key, '*') for key in ('train_split', 'eval_split')]
    for key, paths in inputs.items():
        for path in filter(None, paths):
            if key.startswith('data.source') and not formats.is_path(path):
                if not path.startswith('pydocs/'):
                    yield f'{key}={path}: a TFDS data set. Prepare it there with python -m bert_jax.bin.download {path}'
            elif not buckets.is_in_bucket(path):
                found = _find(path, splits)
                if not found:
                    yield f'{key}={path}: It is not on this machine.'
                elif not _is_sent(found, sent):
                    yield f'{key}={path}: Copy it with --send={shlex.quote(path)}.'


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line at `--` into launcher arguments and training arguments.

    Raises:
      SystemExit: if there are no training arguments.
    """
    i = arguments.index('--') if '--' in arguments else len(arguments)
    if not arguments[i + 1 :] and '-h' not in arguments and '--help' not in arguments:
        sys.exit(
            'error: The training arguments are missing. Add them after two dashes: '
            '... -- --config=configs/X.py --workdir=DIR'
        )
    return arguments[:i], arguments[i + 1 :]
