"""A pretrained run and labelled data, made once for all tests, and doors run as processes."""

import contextlib
import io
import json
import os
import pathlib
import random
import runpy
import subprocess
import sys
import types
import unittest.mock

import jax
import numpy as np
import pytest

from bert_jax.bin import train as train_door

TINY = pathlib.Path(__file__).parent / 'tiny.py'
ROOT = TINY.parents[1]


@pytest.fixture(scope='session')
def rows(tmp_path_factory, corpus):
    """A folder of prepared rows with its tokenizer, shared by all runs."""
    folder = tmp_path_factory.mktemp('rows')
    workdir = tmp_path_factory.mktemp('first')
    pretrain(workdir, corpus, folder, 'train.steps=1', 'optim.warmup=0')
    return folder


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory, corpus, rows):
    """The working directory of an uninterrupted run of 20 steps."""
    workdir = tmp_path_factory.mktemp('pretrained')
    assert pretrain(workdir, corpus, rows) == 0
    return workdir


SAVED = 'checkpoint.every=1.0'  # at the end alone
GPT = ('task.name=clm', 'model.name=gpt', 'train.steps=60', 'optim.learning_rate=0.01', SAVED)
BART = ('task.name=denoise', 'model.name=bart', 'train.steps=40', 'optim.learning_rate=0.01', SAVED)


@pytest.fixture(scope='session')
def gpt(tmp_path_factory, corpus):
    """The working directory of a GPT that has learnt what follows what."""
    workdir = tmp_path_factory.mktemp('gpt')
    assert pretrain(workdir, corpus, workdir / 'rows', *GPT) == 0
    return workdir


@pytest.fixture(scope='session')
def bart(tmp_path_factory, corpus):
    """The working directory of a BART that has begun to restore text."""
    workdir = tmp_path_factory.mktemp('bart')
    assert pretrain(workdir, corpus, workdir / 'rows', *BART) == 0
    return workdir


@pytest.fixture(scope='session')
def bilingual(tmp_path_factory, corpus):
    """The working directory of a BERT of a language and its double."""
    workdir = tmp_path_factory.mktemp('bilingual')
    assert pretrain(workdir, corpus, workdir / 'rows', 'task.name=bilingual', 'task.next=none', SAVED) == 0
    return workdir


@pytest.fixture(scope='session')
def labelled(tmp_path_factory):
    """`{split}.jsonl` files in which one word decides the class."""
    folder = tmp_path_factory.mktemp('labelled')
    rng = random.Random(0)
    for split, n in (('train', 64), ('validation', 21)):
        with (folder / f'{split}.jsonl').open('w') as file:
            for _ in range(n):
                label = rng.choice(['good', 'bad'])
                file.write(json.dumps({'text': f'the {label} dog {rng.random()}', 'label': label}) + '\n')
    return f'{folder}/{{split}}.jsonl'


def pretrain(workdir, corpus, rows, *overrides):
    """Runs the pretraining door in this process."""
    base = [f'data.sources=({str(corpus)!r},)', f'data.rows={rows}']
    return train_door.run(f'{TINY}:pretrain', workdir, [*base, *overrides])


def finetune(workdir, checkpoint, source, *overrides):
    base = [f'data.source={source}', f'init.checkpoint={checkpoint}']
    return train_door.run(f'{TINY}:classify', workdir, [*base, *overrides])


def run_door(*words, code='', timeout=120):
    """Runs `python -m bert_jax.bin.WORDS` as a process; `code` is executed in it first."""
    script = f'{code}\nimport runpy, sys\nsys.argv = {[*words]!r}\nrunpy.run_module(sys.argv[0], run_name="__main__")'
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout
    )


def run_here(name, *words):
    """As `run_door`, in this process, which is much quicker."""
    out, err = io.StringIO(), io.StringIO()
    sys.modules.pop(name, None)
    with (
        unittest.mock.patch.object(sys, 'argv', [name, *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        runpy.run_module(name, run_name='__main__')
    return types.SimpleNamespace(
        returncode=exit_.value.code or 0, stdout=out.getvalue(), stderr=err.getvalue()
    )


def arrays(workdir, step):
    """Everything a checkpoint holds, by path."""
    import orbax.checkpoint as ocp

    found = {}
    for item in ('params', 'training'):
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(workdir / 'checkpoints' / str(step) / item)
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            found[f'{item}{path}'] = np.asarray(value)
    return found


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    volatile = ('tokens_per_second', 'mfu')
    return [{k: v for k, v in line.items() if k not in volatile} for line in lines]
