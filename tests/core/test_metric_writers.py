"""Metrics reach TensorBoard, Weights & Biases and Trackio, each step once."""

import importlib.util
import json
import math
import sqlite3
import sys
import types

import pytest

from bert_jax.core import metric_writers, metrics
from bert_jax.core.errors import UserError
from bert_jax.train.experiment import TrainConfig

CONFIG = {'train': {'seed': 1}}


class Tracker(types.ModuleType):
    """Stands for Weights & Biases or Trackio, and records what it is given."""

    Settings = dict
    Error = ValueError

    def __init__(self):
        super().__init__('tracker')
        self.__spec__ = importlib.util.spec_from_loader('tracker', None)
        self.starts, self.values, self.num_finished = [], [], 0

    def setup(self):
        return types.SimpleNamespace(settings=types.SimpleNamespace(project=None))

    def init(self, *args, **kwargs):
        self.starts.append((args, kwargs))
        return self

    def log(self, values, step):
        self.values.append((step, values))

    def finish(self):
        self.num_finished += 1


def write_and_resume(folder, names):
    """Write three steps, then resume after the first and write two more steps than before."""
    for start, stop in ((0, 3), (1, 5)):
        writer = metrics.Writer(folder, folder, start, names, CONFIG)
        for step in range(start + 1, stop + 1):
            writer(step, {'loss': 1 / step, 'nan': math.nan})
        writer.close()


@pytest.mark.parametrize('name', ['wandb', 'trackio'])
def test_resumed_run_continues_its_curves(name, tmp_path, monkeypatch):
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    write_and_resume(tmp_path, [name])
    assert tracker.values == [(step, {'loss': 1 / step}) for step in range(1, 6)]
    assert tracker.num_finished == 2
    first, second = tracker.starts
    assert first == second
    assert first[1]['config'] == CONFIG
    assert [line['step'] for line in metrics.read(tmp_path)] == [1, 2, 3, 4, 5]


def test_weights_and_biases_stores_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip('wandb', reason='wandb is an optional package')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    write_and_resume(tmp_path, ['wandb'])
    assert len([*tmp_path.glob('wandb/offline-run-*/run-*.wandb')]) == 2


def test_trackio_stores_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'trackio'))
    pytest.importorskip('trackio', reason='trackio is an optional package')
    write_and_resume(tmp_path, ['trackio'])
    with sqlite3.connect(tmp_path / 'trackio' / f'{metric_writers.PROJECT}.db') as database:
        rows = database.execute('SELECT step, metrics FROM metrics ORDER BY id').fetchall()
    assert [(step, json.loads(values)) for step, values in rows] == [
        (s, {'loss': 1 / s}) for s in range(1, 6)
    ]


def test_weights_and_biases_without_login_says_what_to_do(tmp_path, monkeypatch):
    def fail(**_):
        raise ValueError('api_key not configured')

    tracker = Tracker()
    tracker.init = fail
    monkeypatch.setitem(sys.modules, 'wandb', tracker)
    with pytest.raises(
        UserError, match=r'\(api_key not configured\)\. Run `wandb login`, or set WANDB_MODE=offline'
    ):
        metrics.Writer(tmp_path, tmp_path, 0, ['wandb'], CONFIG)


def test_unknown_and_missing_writers_are_errors(monkeypatch):
    with pytest.raises(UserError, match=r"train\.writers contains 'wandbb': did you mean 'wandb'"):
        TrainConfig(writers=('wandbb',))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    metric_writers.check_installed(['tensorboard'])
    with pytest.raises(UserError, match="'trackio', which is not installed. Run `pip install trackio`"):
        metric_writers.check_installed(['tensorboard', 'trackio'])
