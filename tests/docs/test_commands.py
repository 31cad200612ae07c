"""Every shell command in the documentation is accepted by its own parser, and its config resolves. Nothing is run."""

import contextlib
import functools
import io
import re

import pytest

from bert_jax.core import config as config_lib
from bert_jax.core.errors import UserError
from bert_jax.evals import language_model
from bert_jax.experiments import tables
from bert_jax.train import experiment
from docs import commands, generate
from tests.docs import pages, shell

# Programs and shell builtins that examples may call, and whose arguments are not checked.
OTHER_PROGRAMS = {
    'apt', 'apt-get', 'cat', 'cd', 'chromium', 'cp', 'curl', 'gcloud', 'git', 'head', 'kill', 'ls', 'mkdir', 'nvidia-smi',
    'pip', 'pre-commit', 'pytest', 'rm', 'ruff', 'mypy', 'sbatch', 'scancel', 'scp', 'squeue', 'ssh', 'sudo', 'tail',
    'tensorboard', 'uv', 'zcat',
}  # fmt: skip
# Python programs of others, run as python -m NAME.
OTHER_MODULES = {'pip', 'pytest', 'venv', 'http.server', 'sphinx', 'uv'}
_CONFIG = re.compile(r'\S+\.py(:\S*)?')


def check(words: list[str]) -> None:
    """Raise AssertionError unless a command of the documentation is right."""
    program, *rest = words
    if program in ('python', 'python3'):
        _check_python(rest)
    elif program in ('bash', 'sh', 'source', '.'):
        assert rest, f'{program} needs a script'
        assert rest[0].startswith(('.venv/', '~')) or (pages.ROOT / rest[0]).is_file(), (
            f'there is no file {rest[0]}'
        )
    else:
        assert program in OTHER_PROGRAMS, (
            f'{program!r} is not a program that examples may call. Put output and usage patterns into a ```text block, '
            'or add the program to OTHER_PROGRAMS in tests/docs/test_commands.py.'
        )


def _check_python(words: list[str]) -> None:
    if words[:1] == ['-c']:
        compile(words[1], '-c', 'exec')
        return
    is_module = words[:1] == ['-m']
    name, rest = (words[1], words[2:]) if is_module else (words[0], words[1:])
    if is_module and name in OTHER_MODULES:
        return
    assert name in commands.names(), f'there is no command {name}. Known: {", ".join(commands.names())}'
    if '--' in rest and name.startswith('launch/'):  # arguments of the training on another machine
        check_arguments('bert_jax.bin.train', rest[rest.index('--') + 1 :])
    check_arguments(name, rest)


def check_arguments(name: str, words: list[str]) -> None:
    """Parse the arguments of a command, and resolve its config and overrides."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            parsed = commands.capture(name, words)
    except SystemExit as e:
        message = errors.getvalue().strip().splitlines()
        raise AssertionError(f'{name} rejects its arguments: {message[-1] if message else e}') from None
    values = [v for v in vars(parsed.flags).values() if isinstance(v, str) and _CONFIG.fullmatch(v)]
    try:
        for i, spec in enumerate(values or [None]):
            _resolve(name, spec, parsed.overrides if i == 0 else ())
            for assignment in getattr(parsed.flags, 'over', []):
                key, _, several = assignment.partition('=')
                for value in several.split(','):
                    _resolve(name, spec, (*parsed.overrides, f'{key}={value}'))
    except UserError as e:
        raise AssertionError(f'{name}: {e}') from None


@functools.cache
def _resolve(name: str, spec: str | None, overrides: tuple[str, ...]) -> None:
    """Read a config with its overrides; without a config, check that the overridden keys exist."""
    if spec is None:
        for override in overrides:
            key = override.partition('=')[0]
            if key not in known_keys():
                raise UserError(f'Unknown config key {key!r}: {config_lib.did_you_mean(key, known_keys())}')
    elif name == 'bert_jax.bin.table':
        tables.read(spec, overrides)
    elif name == 'bert_jax.bin.eval_lm':
        language_model.read_config(spec, overrides)
    else:
        experiment.read(spec, overrides)


@functools.cache
def known_keys() -> frozenset[str]:
    return frozenset(key.name for section in generate.sections() for key in section.config_keys())


BLOCKS = [
    b for page in pages.names() for b in pages.blocks(page) if b.language in pages.SHELL and not b.reason
]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(pages.ROOT)


@pytest.mark.parametrize('block', BLOCKS, ids=str)
def test_commands_of_the_documentation_are_accepted(block):
    found = shell.expand(block.text)
    assert found, f'{block} has no command: use a ```text block for output'
    for words in found:
        try:
            check(words)
        except AssertionError as e:
            pytest.fail(f'{block}: {e}\n  in: {" ".join(words)}', pytrace=False)


@pytest.mark.parametrize('name', commands.names())
def test_help_ends_with_two_examples(name):
    parser = commands.capture(name, None).parser
    flags, _, examples = parser.format_help().partition('\nexamples:\n')
    found = shell.expand(examples)
    assert len(found) == 2
    for words in found:
        assert name in words[1:3]
        check(words)
    assert all(option in flags for action in parser._actions for option in action.option_strings)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('python -m bert_jax.bin.trian --config=a.py', 'no command bert_jax.bin.trian'),
        ('python -m bert_jax.bin.train --config=configs/quickstart.py:pretrain', 'required: --workdir'),
        ('python -m bert_jax.bin.train --config=configs/nothing.py --workdir=w', 'configs/nothing.py'),
        (
            'python -m bert_jax.bin.train --config=configs/quickstart.py:pretrain --workdir=w --config.train.stepz=1',
            'train.stepz',
        ),
        ('python -m bert_jax.bin.predict --checkpoint=w --config.data.txet=a', 'data.txet'),
        ('python -m bert_jax.bin.status w --evry=3', 'evry'),
        (
            'python launch/tpu.py --name=a --zone=b --type=c -- --config=configs/quickstart.py:pretrain',
            '--workdir',
        ),
        ('bash launch/nothing.sh', 'launch/nothing.sh'),
        ('run everything', 'not a program'),
    ],
)
def test_wrong_commands_are_found(line, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        for words in shell.expand(line):
            check(words)


def test_blocks_are_expanded_as_a_shell_does():
    code = """
for labels in few all; do for seed in 0 1; do  # a comment
    python -m x --config=c.py:$labels --seed=${seed} \\
        --name='two words'
done; done
[ a = a ] && echo_ "$(python -c 'x')" &
wait
"""
    found = shell.expand(code)
    assert found[:4] == [
        ['python', '-m', 'x', f'--config=c.py:{labels}', f'--seed={seed}', '--name=two words']
        for labels in ('few', 'all')
        for seed in '01'
    ]
    assert sorted(found[4:]) == [['echo_', ''], ['python', '-c', 'x']]


def test_output_after_a_prompt_is_not_a_command():
    assert shell.expand('$ python -m x \\\n    --a\nall done\n$ ls') == [['python', '-m', 'x', '--a'], ['ls']]
