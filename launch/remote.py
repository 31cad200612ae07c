"""Helper functions of the launchers for remote machines: run or print commands, archive and install the project."""

import argparse
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from bert_jax.core import cli
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


def make_archive(run: Runner, folder: pathlib.Path) -> pathlib.Path:
    """Write the project files of the working tree to an archive in `folder`; return its path."""
    file = folder / ARCHIVE
    run('tar', '-czf', str(file), '--exclude=__pycache__', '-C', str(ROOT), *SHIPPED)
    return file


def install_command(jax_extra: str) -> str:
    """The shell command that unpacks the archive and installs the project.

    Args:
      jax_extra: extra of the jax package to install, 'tpu' or 'cuda13'.
    """
    python = (
        'PYTHON=$(command -v python3.12 || command -v python3.11) || '
        '{ python3 -m pip install -q --user uv && python3 -m uv python install -q 3.12 && '
        'PYTHON=$(python3 -m uv python find 3.12); }'
    )
    jax = f'python -m pip install -q "jax[{jax_extra}]==$(python -c \'import jax; print(jax.__version__)\')"'
    unpack = f'mkdir -p bert_jax && tar -xzf {ARCHIVE} -C bert_jax && cd bert_jax'
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


def validate(arguments: Sequence[str]) -> str:
    """Validate the training arguments before any machine is used.

    Returns:
      The working directory, relative to the home directory of the remote user.

    Raises:
      UserError: for invalid settings, or a config file that is not in the archive.
      SystemExit: for missing or unknown arguments.
    """
    parser = argparse.ArgumentParser(prog='... --', usage='... -- --config=configs/X.py --workdir=DIR')
    parser.add_argument('--config', required=True)
    parser.add_argument('--workdir', required=True)
    flags, overrides = cli.parse_args(parser, arguments)

    from bert_jax.experiments import jobs

    path, colon, arg = flags.config.partition(':')
    file = (ROOT / path).resolve()
    if pathlib.Path(path).is_absolute() or not any(file.is_relative_to(ROOT / name) for name in SHIPPED):
        raise UserError(
            f'--config={path} is outside the project, and only the project is copied to the machine. Move the file into '
            'configs/ and write --config=configs/X.py.'
        )
    jobs.validate([jobs.Job(pathlib.Path(flags.workdir), f'{ROOT / path}{colon}{arg}', tuple(overrides))])
    return str(pathlib.PurePosixPath('bert_jax') / flags.workdir)


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
