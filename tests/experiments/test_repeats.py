"""Runs over seeds and grids: the figures, and a real grid that is resumed."""

import json
from typing import NamedTuple

import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs, repeats
from tests.runs import TINY, run_here


def write(place, accuracy, majority=0.5):
    place.mkdir(parents=True)
    sections = ('data', 'model', 'train', 'init', 'checkpoint')
    (place / 'config.json').write_text(json.dumps({name: {} for name in sections}))
    lines = [{'step': 1, 'loss': 1.0}]
    if accuracy is not None:
        lines.append(
            {'step': 2, 'eval/loss': 1 - accuracy, 'eval/accuracy': accuracy, 'eval/majority': majority}
        )
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
    assert repeats.summary(tmp_path, grid, 3, 'loss')['best'] == 1, 'of a loss the lowest is best'
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


class Ended(NamedTuple):
    """A process that has ended."""

    returncode: int

    def poll(self):
        return self.returncode


@pytest.fixture
def train_here(monkeypatch):
    """Runs are made in this process; returns what they wrote to stderr."""
    written = []

    def start(job, _):
        done = run_here(*job.words)
        written.append(done.stderr)
        job.place.mkdir(parents=True, exist_ok=True)
        (job.place / jobs.LOG).write_text(done.stderr)
        return jobs._Running(job, Ended(done.returncode), 0.0, 0)

    monkeypatch.setattr(jobs, '_start', start)
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
    assert len(train_here) == 2
    assert again.stdout == done.stdout


def grid_of(tmp_path, pretrained, labelled, *more):
    return run_here(
        'bert_jax.bin.repeat',
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}',
        f'--config.data.source={labelled}',
        f'--config.init.checkpoint={pretrained}',
        '--config.train.steps=4',
        *more,
    )


def test_a_wrong_value_is_noticed_before_any_run(tmp_path, pretrained, labelled, train_here):
    done = grid_of(tmp_path, pretrained, labelled, '--over=optim.learning_rate=0.01,-1')
    assert done.returncode == 1
    assert 'optim.learning_rate=-1.0 must be at least 0' in done.stderr
    assert not train_here


def test_seeds_are_no_grid(tmp_path, pretrained, labelled, train_here):
    done = grid_of(tmp_path, pretrained, labelled, '--over=train.seed=3,4')
    assert done.returncode == 2
    assert 'write --seeds=N' in done.stderr
    assert not train_here


def test_a_value_is_given_once(tmp_path, pretrained, labelled, train_here):
    done = grid_of(tmp_path, pretrained, labelled, '--over=optim.learning_rate=0.01,0.01')
    assert done.returncode == 1
    assert 'has a value twice' in done.stderr
    done = grid_of(tmp_path, pretrained, labelled, '--over=train.steps=1', '--over=train.steps=2')
    assert done.returncode == 2
    assert 'names a key twice' in done.stderr
    assert not train_here


def test_a_wrong_score_is_named_and_nothing_lost(tmp_path, pretrained, labelled, train_here):
    done = grid_of(tmp_path, pretrained, labelled, '--score=f2')
    assert done.returncode == 1
    assert "no score 'f2': known are loss, cross_entropy, accuracy" in done.stderr
    assert grid_of(tmp_path, pretrained, labelled, '--score=loss').returncode == 0
    assert len(train_here) == 1


def test_runs_of_another_config_are_not_reported(tmp_path, pretrained, labelled, train_here):
    assert grid_of(tmp_path, pretrained, labelled).returncode == 0
    done = grid_of(tmp_path, pretrained, labelled, '--config.train.batch_size=8')
    assert done.returncode == 1
    assert 'made by another config' in train_here[-1]
    assert not done.stdout


def test_runs_that_diverge_leave_the_others(tmp_path, pretrained, labelled, train_here):
    # Gradients beyond what a float32 can hold.
    done = grid_of(
        tmp_path, pretrained, labelled, '--over=optim.learning_rate=1e38,0.01', '--config.train.steps=9'
    )
    assert done.returncode == 1
    assert 'learning_rate=1e38/seed0: error: At step' in done.stderr
    first, second = json.loads((tmp_path / 'summary.json').read_text())['cells']
    assert (first['n'], first['failed']) == (0, 1)
    assert second['n'] == 1


def test_what_cannot_begin_is_said_once(tmp_path, train_here):
    words = (f'--config={TINY}:classify', f'--workdir={tmp_path}', '--seeds=2')
    done = run_here('bert_jax.bin.repeat', *words)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert 'seed0 and 1 more: error: A downstream task needs a tokenizer' in done.stderr
    assert done.stderr.count('tokenizer.path') == 1
