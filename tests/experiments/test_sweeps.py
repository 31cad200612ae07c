"""Sweeps: names from content, only what is missing, the best first."""

import subprocess
import sys

import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import sweeps
from bert_jax.train import experiment
from tests.runs import ROOT, TINY

CONFIG = """
import importlib.util
spec = importlib.util.spec_from_file_location('tiny', {tiny!r})
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


def get_config():
    config = tiny.get_config('classify')
    config.data.source = {source!r}
    config.init = dict(checkpoint={checkpoint!r})
    config.train.steps = 8
    config.train.eval_every = 0
    config.checkpoint = dict(best='accuracy', every=1.0)
    return config


def sweep(add):
    for rate in (1e-3, 1e-2):
        add({{'optim.learning_rate': rate, 'train.seed': 1}})
    add({{'optim.learning_rate': 1e9, 'train.seed': 1, 'optim.clip': 0.0}})
"""


def launch(*words):
    command = [sys.executable, str(ROOT / 'launch' / 'sweep.py'), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_names_come_from_the_settings_alone():
    assert sweeps.name({'optim.learning_rate': 1e-4, 'train.seed': 0}) == 'learning_rate=0.0001,seed=0'
    assert sweeps.name({'train.seed': 0, 'data.seed': 1}) == 'data.seed=1,train.seed=0'
    long = sweeps.name({'data.source': 'a/b c.jsonl'})
    assert long.startswith('source=a_b_c.jsonl-')
    assert long != sweeps.name({'data.source': 'a_b c.jsonl'})
    assert sweeps.name({'data.source': 'a/b c.jsonl'}) == long


@pytest.mark.parametrize(
    ('body', 'said'),
    [
        ('', 'has no sweep'),
        ('def sweep(add): pass', 'must add runs'),
        ('def sweep(): pass', 'failed .*takes 0 positional arguments'),
        ('def sweep(add):\n  add("text")', 'failed'),
        ('def sweep(add):\n  add({"a.b": 1})\n  add({"a.b": 1})', 'each of them once'),
    ],
)
def test_a_sweep_that_cannot_be_is_said(tmp_path, body, said):
    (tmp_path / 'config.py').write_text(body)
    with pytest.raises(UserError, match=said):
        sweeps.read(str(tmp_path / 'config.py'))


def test_values_arrive_as_they_are_meant(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f'import numpy as np, runpy\ndef get_config(): return runpy.run_path({str(TINY)!r})["get_config"]("pretrain")\n'
        'def sweep(add): add({"model.name": "bert", "train.steps": "7 epochs", "optim.learning_rate": np.float64(0.5)})\n'
    )
    (job,) = sweeps.jobs(str(path), tmp_path, ())
    read = experiment.read(job.config, job.settings)
    assert (read.model.name, read.train.steps, read.optim.learning_rate) == ('bert', '7 epochs', 0.5)


def test_a_sweep_runs_what_is_missing_and_shows_the_best(tmp_path, labelled, pretrained):
    config, workdir = tmp_path / 'config.py', tmp_path / 'runs'
    config.write_text(CONFIG.format(tiny=str(TINY), source=labelled, checkpoint=str(pretrained)))
    words = f'--config={config}', f'--workdir={workdir}'
    printed = launch(*words, '--print').stdout.splitlines()
    assert len(printed) == 3
    assert not workdir.exists()
    done = launch(*words, '--jobs=2')
    assert done.returncode == 1
    assert 'failed' in done.stderr  # the third alone
    assert 'optim.learning_rate' in done.stderr
    table = [line.split(',') for line in (workdir / 'sweep.csv').read_text().splitlines()]
    assert table[0] == ['', 'optim.learning_rate', 'train.seed', 'optim.clip', 'state', 'step', 'accuracy']
    assert table[1][0] == '*'
    scores = [float(line[-1]) for line in table[1:] if line[-1]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert (workdir / 'sweep.png').stat().st_size > 1000
    times = {p: p.stat().st_mtime for p in workdir.rglob('done.json')}
    assert len(times) == 2
    again = launch(*words)
    assert again.stderr.count('begins:') == 1
    assert {p: p.stat().st_mtime for p in workdir.rglob('done.json')} == times
    assert launch(*words, '--list').stdout.count('done') == 2
