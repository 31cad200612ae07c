"""Descriptions of config keys, and the flag --show of the commands."""

import dataclasses
from typing import Literal

import pytest

from bert_jax.core import settings
from bert_jax.core.errors import UserError
from bert_jax.train import checkpoint, experiment
from tests.runs import TINY, run_in_process


@dataclasses.dataclass(frozen=True)
class Size:
    """A size.

    Attributes:
      unit: unit of both sizes. It is the same for both.
    """

    unit: Literal['mm', 'cm'] = 'mm'


@dataclasses.dataclass(frozen=True)
class Box(Size):
    """A box, whose
    sides are equal.

    Attributes:
      width, height: length of a side in
        units; 0 uses the other side.
      names (unused): words of several languages that name the box, each at most 30 characters long.
    """

    width: int = 0
    height: int = 0
    names: tuple[str, ...] = ('a box', 'eine Schachtel', 'una caja', 'une boîte', 'una scatola')


def format_box(chosen='', width=60):
    section = settings.describe_section(
        Box, 'box', vars(Box(width=3, height=3)), {'width': 'config'}, ['box.unit="mm"']
    )
    return [*settings.format_sections([section], chosen, width)]


def test_all_sections_have_one_line_per_meaning():
    assert format_box() == [
        'box: A box, whose sides are equal.',
        "  box.unit = 'mm'  (override; 'mm' | 'cm')",
        '      unit of both sizes. It is the same for both.',
        '  box.width = 3  (config; int)',
        '      length of a side in units; 0 uses the other side.',
        '  box.height = 3  (derived; int)',
        '      length of a side in units; 0 uses the other side.',
        "  box.names = ('a box', 'eine Schachtel', 'una caja', ...",
        '      (default; tuple[str, ...])',
        '      words of several languages that name the box, each ...',
        '',
    ]
    assert '      unit of both sizes.' in format_box(width=45)
    assert '      length of a side in units' in format_box(width=45)


def test_one_section_has_whole_values_and_meanings():
    lines = format_box('box')
    assert "'una scatola')  (default; tuple[str, ...])" in ' '.join(lines)
    assert lines[-3:-1] == [
        '      words of several languages that name the box, each at',
        '      most 30 characters long.',
    ]
    with pytest.raises(UserError, match=r"Unknown config section 'boxes': did you mean 'box'\?"):
        format_box('boxes')


COMMANDS = {
    'train': f'{TINY}:classify',
    'sweep': f'{TINY}:classify',
    'eval_classify': f'{TINY}:classify',
    'prepare': f'{TINY}:pretrain',
    'plan': f'{TINY}:pretrain',
}


@pytest.mark.parametrize('command', COMMANDS)
def test_commands_show_a_config_without_their_other_flags(command):
    done = run_in_process(
        f'bert_jax.bin.{command}', '--show', f'--config={COMMANDS[command]}', '--config.train.steps=3 epochs'
    )
    assert done.returncode == 0, done.stderr
    assert "  train.steps = '3 epochs'  (override; int | float | str)\n" in done.stdout
    for origin in ('config', 'default', 'derived'):
        assert f'({origin}; int)' in done.stdout
    assert not done.stdout.endswith('\n\n')


def test_architecture_of_a_checkpoint_is_shown(monkeypatch):
    words = [f'--config={TINY}:classify', '--config.init.checkpoint=nowhere', '--config.model.dropout=0.2']
    done = run_in_process('bert_jax.bin.train', *words, '--show=model')
    assert done.returncode == 0
    assert "There is no checkpoint in 'nowhere'" in done.stderr
    assert '(checkpoint' not in done.stdout
    saved = experiment.read(f'{TINY}:pretrain', ['model.layers=7', 'model.dropout=0.3'])
    monkeypatch.setattr(checkpoint, 'read_metadata', lambda path: (path, {'config': saved.as_dict()}))
    text = run_in_process('bert_jax.bin.train', *words, '--show=model').stdout
    assert '  model.layers = 7  (checkpoint; int)' in text
    assert '  model.dropout = 0.2  (override; float)' in text


def test_evaluations_and_tables_are_shown():
    words = ['--config=configs/eval/lm.py:lambada', '--config.eval.limit=5', '--show']
    text = run_in_process('bert_jax.bin.eval_lm', *words).stdout
    assert '  eval.limit = 5  (override; int)' in text
    words = ['--config=configs/tables/bert_table1.py', '--config.seeds=5', '--show=table']
    text = run_in_process('bert_jax.bin.table', *words).stdout  # needs no checkpoint
    assert '  seeds = 5  (override; int)' in text
    assert "  rows = ('pretrained', 'random weights')  (config; tuple[Row, ...])" in text


def test_wrong_settings_are_errors():
    for words, message in (
        (['--show=optm'], "Unknown config section 'optm': did you mean 'optim'?"),
        (['--show', '--config.optim.lerning_rate=1'], "did you mean 'learning_rate'?"),
    ):
        done = run_in_process('bert_jax.bin.train', f'--config={TINY}:classify', *words)
        assert done.returncode == 1
        assert message in done.stderr
