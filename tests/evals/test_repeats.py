"""Runs over seeds and grids: the figures, and a real grid that is resumed."""

import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import repeats
from tests.runs import TINY, run_here


def write(place, accuracy, majority=0.5):
    place.mkdir(parents=True)
    (place / 'config.json').write_text('{}')
    lines = [{'step': 1, 'loss': 1.0}]
    if accuracy is not None:
        lines.append({'step': 2, 'eval/loss': 1.0, 'eval/accuracy': accuracy, 'eval/majority': majority})
    (place / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_figures_and_failed_runs(tmp_path):
    grid = {'optim.learning_rate': ('1e-4', '3e-4')}
    for cell, values in (('1e-4', (0.6, 0.8, 0.5)), ('3e-4', (0.9, None, 0.7))):
        for seed, value in enumerate(values):
            write(tmp_path / f'learning_rate={cell}' / f'seed{seed}', value)
    found = repeats.summary(tmp_path, grid, 3, 'accuracy')
    first, second = found['cells']
    assert first['mean'] == pytest.approx(1.9 / 3)
    assert first['median'] == 0.6
    assert first['std'] == pytest.approx(0.1527525)
    assert (first['n'], first['failed']) == (3, 1)  # 0.5 is the majority
    assert second['scores'] == [0.9, None, 0.7]
    assert (second['n'], second['failed']) == (2, 1)
    assert found['best'] == 1
    best = repeats.table(found).splitlines()[2]
    assert best.startswith('* 3e-4')
    assert best.split()[-2:] == ['2', '1']


def test_an_unknown_score_is_named(tmp_path):
    write(tmp_path / 'runs' / 'seed0', 0.7)
    with pytest.raises(UserError, match=r"no score 'f1': known are loss, accuracy, majority"):
        repeats.summary(tmp_path, {}, 1, 'f1')


def test_the_recipe_of_the_paper_has_eighteen_cells():
    found = repeats.cells(repeats.RECIPE)
    assert len({repeats.folder(c) for c in found}) == 18
    assert repeats.cells({}) == [{}]


@pytest.fixture
def train_here(monkeypatch):
    """Runs are made in this process; returns what they wrote to stderr."""
    written = []

    def call(command):
        done = run_here(*command[2:])
        written.append(done.stderr)
        return done.returncode

    monkeypatch.setattr(repeats.subprocess, 'call', call)
    return written


def test_a_grid_is_run_and_resumed(tmp_path, pretrained, labelled, train_here):
    words = (
        'bert_jax.bin.repeat',
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}',
        '--over=optim.learning_rate=0.01,0.0',
        f'--config.data.source={labelled}',
        f'--config.init.checkpoint={pretrained}',
        '--config.train.steps=30',
    )
    done = run_here(*words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'summary.json').read_text())
    assert [c['settings'] for c in found['cells']] == [{'optim.learning_rate': v} for v in ('0.01', '0.0')]
    assert found['best'] == 0
    assert found['cells'][0]['scores'][0] > found['cells'][1]['scores'][0]
    again = run_here(*words)
    assert again.returncode == 0, again.stderr
    assert ['resuming at step 30 of 30' in text for text in train_here] == [False, False, True, True]
    assert again.stdout == done.stdout


def test_what_cannot_begin_is_said_once(tmp_path, train_here):
    words = (f'--config={TINY}:classify', f'--workdir={tmp_path}', '--seeds=2')
    done = run_here('bert_jax.bin.repeat', *words)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert done.stderr.count('run ') == 1
