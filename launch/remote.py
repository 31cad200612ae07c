"""What launchers that work on other machines share: commands that are run or shown, the project as an archive, its installation."""

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
    """Runs commands, or only shows them.

    Args:
      show: print what would be run, and run nothing.
    """

    def __init__(self, show: bool):
        self.show = show

    def __call__(self, *command: str, may_fail: bool = False) -> int:
        """Runs a command to its end.

        Returns:
          Its status; 0 of one that is shown.

        Raises:
          SystemExit: if it fails and may not.
        """
        print(f'+ {shlex.join(command)}', file=sys.stdout if self.show else sys.stderr, flush=True)
        if self.show:
            return 0
        try:
            status = subprocess.run(command).returncode
        except FileNotFoundError:
            sys.exit(
                f'error: There is no {command[0]} here: install it, or see with --print what would be run.'
            )
        if status and not may_fail:
            sys.exit(f'error: {command[0]} ended with status {status}: see above.')
        return status

    def output(self, *command: str) -> str:
        """What a command prints; nothing of one that is shown or fails."""
        if self.show:
            print(f'+ {shlex.join(command)}', flush=True)
            return ''
        return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()


def archive(run: Runner, folder: pathlib.Path) -> pathlib.Path:
    """The files of the project, as they are in the working tree, in an archive in `folder`."""
    file = folder / ARCHIVE
    run('tar', '-czf', str(file), '--exclude=__pycache__', '-C', str(ROOT), *SHIPPED)
    return file


def install(extra: str) -> str:
    """A shell command that unpacks the archive and installs what it needs, once.

    Args:
      extra: of JAX: 'tpu' or 'cuda13'.
    """
    python = (
        'PYTHON=$(command -v python3.12 || command -v python3.11) || '
        '{ python3 -m pip install -q --user uv && python3 -m uv python install -q 3.12 && '
        'PYTHON=$(python3 -m uv python find 3.12); }'
    )
    jax = f'python -m pip install -q "jax[{extra}]==$(python -c \'import jax; print(jax.__version__)\')"'
    unpack = f'mkdir -p bert_jax && tar -xzf {ARCHIVE} -C bert_jax && cd bert_jax'
    return f'{unpack} && {{ {python}; }} && export PYTHON && source launch/env.sh && {jax}'


def train(words: Sequence[str]) -> str:
    """A shell command that trains with these arguments, which arrive as they are here."""
    return f'cd bert_jax && source launch/env.sh && exec python -m bert_jax.bin.train {shlex.join(words)}'


def run(main: Callable[[], int | None], interrupted: str) -> None:
    """Runs a launcher as `cli.run` runs a door; `interrupted` is said to who stops it."""

    def launcher() -> int | None:
        try:
            return main()
        except KeyboardInterrupt:
            sys.exit(interrupted)

    cli.run(launcher)


def check(words: Sequence[str]) -> str:
    """Checks the arguments of a training before a machine is had for it.

    Returns:
      Where its working directory lies, for one who logs in.

    Raises:
      UserError: for settings that cannot be, or a config that is not in the archive.
      SystemExit: for other arguments.
    """
    parser = argparse.ArgumentParser(prog='... --', usage='... -- --config=configs/X.py --workdir=DIR')
    parser.add_argument('--config', required=True)
    parser.add_argument('--workdir', required=True)
    flags, overrides = cli.parse(parser, words)

    from bert_jax.experiments import jobs

    path, colon, arg = flags.config.partition(':')
    file = (ROOT / path).resolve()
    if pathlib.Path(path).is_absolute() or not any(file.is_relative_to(ROOT / name) for name in SHIPPED):
        raise UserError(
            f'--config={path} would not arrive, since nothing but the project is sent: put it into its configs/, and '
            'write --config=configs/X.py.'
        )
    jobs.check([jobs.Job(pathlib.Path(flags.workdir), f'{ROOT / path}{colon}{arg}', tuple(overrides))])
    return str(pathlib.PurePosixPath('bert_jax') / flags.workdir)


def after_dashes(parser_words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before `--` and those after it.

    Raises:
      SystemExit: if there are none after it.
    """
    words = list(parser_words)
    at = words.index('--') if '--' in words else len(words)
    if not words[at + 1 :] and '-h' not in words and '--help' not in words:
        sys.exit(
            'error: The arguments of the training go after two dashes: ... -- --config=configs/X.py --workdir=DIR'
        )
    return words[:at], words[at + 1 :]
