"""Fixtures shared by all tests (pretrained runs, labeled data), and functions that run commands."""

import contextlib
import functools
import io
import json
import logging
import os
import pathlib
import random
import runpy
import subprocess
import sys
import threading
import types
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.bin import train as train_command
from bert_jax.experiments import jobs
from bert_jax.modeling import module

TINY = pathlib.Path(__file__).parent / 'tiny.py'
ROOT = TINY.parents[1]


@pytest.fixture(scope='session')
def rows(tmp_path_factory, corpus):
    """Folder of prepared rows and their tokenizer, shared by all runs."""
    folder = tmp_path_factory.mktemp('rows')
    workdir = tmp_path_factory.mktemp('first')
    pretrain(workdir, corpus, folder, 'train.steps=1', 'optim.warmup=0')
    return folder


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory, corpus, rows):
    """Working directory of an uninterrupted run of 20 steps, with checkpoints 15, 18 and 20."""
    workdir = tmp_path_factory.mktemp('pretrained')
    assert pretrain(workdir, corpus, rows, *MANY_CHECKPOINTS) == 0
    return workdir


LENGTH_BUCKETS = 'train.length_buckets=3'
MANY_CHECKPOINTS = ('checkpoint.every=3', 'checkpoint.keep=3')
GPT = ('task.name=clm', 'model.name=gpt', 'train.steps=60', 'optim.learning_rate=0.01')
BART = ('task.name=denoise', 'model.name=bart', 'train.steps=40', 'optim.learning_rate=0.01')


@pytest.fixture(scope='session')
def gpt(tmp_path_factory, corpus):
    """Working directory of a GPT that has learned to continue the corpus."""
    workdir = tmp_path_factory.mktemp('gpt')
    assert pretrain(workdir, corpus, workdir / 'rows', *GPT) == 0
    return workdir


@pytest.fixture(scope='session')
def bart(tmp_path_factory, corpus):
    """Working directory of a BART that has begun to learn denoising."""
    workdir = tmp_path_factory.mktemp('bart')
    assert pretrain(workdir, corpus, workdir / 'rows', *BART) == 0
    return workdir


@pytest.fixture(scope='session')
def bilingual(tmp_path_factory, corpus):
    """Working directory of a BERT that was pretrained on a language and its fake copy."""
    workdir = tmp_path_factory.mktemp('bilingual')
    settings = ('task.name=bilingual', 'task.sentence_objective=none')
    assert pretrain(workdir, corpus, workdir / 'rows', *settings) == 0
    return workdir


@pytest.fixture(scope='session')
def labeled(tmp_path_factory):
    """Pattern of `{split}.jsonl` files with texts in which one word determines the class."""
    folder = tmp_path_factory.mktemp('labeled')
    rng = random.Random(0)
    for split, n in (('train', 64), ('validation', 21)):
        with (folder / f'{split}.jsonl').open('w') as file:
            for _ in range(n):
                label = rng.choice(['good', 'bad'])
                file.write(json.dumps({'text': f'the {label} dog {rng.random()}', 'label': label}) + '\n')
    return f'{folder}/{{split}}.jsonl'


@pytest.fixture(scope='session')
def finetuned(tmp_path_factory, pretrained, labeled):
    """Working directory of a classifier that has learned `labeled`, trained on three lengths of rows."""
    workdir = tmp_path_factory.mktemp('finetuned')
    settings = ('optim.learning_rate=0.003', 'train.steps=60', LENGTH_BUCKETS)
    assert finetune(workdir, pretrained, labeled, *settings) == 0
    return workdir


def slow_after(count, cases):
    """Mark all but the first `count` cases of a parametrized test as slow, since they vary what the first ones test."""
    return [
        case
        if i < count
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def pretrain(workdir, corpus, rows, *overrides):
    """Run the training command in this process, to pretrain."""
    base = [f'data.sources=({str(corpus)!r},)', f'data.rows_dir={rows}']
    return train_command.run(f'{TINY}:pretrain', workdir, [*base, *overrides])


def finetune(workdir, checkpoint, source, *overrides):
    """Run the training command in this process, to fine-tune a classifier."""
    base = [f'data.source={source}', f'init.checkpoint={checkpoint}']
    return train_command.run(f'{TINY}:classify', workdir, [*base, *overrides])


def run_command(*arguments, code='', timeout=300):
    """Run a command in a new process.

    Args:
      *arguments: module of the command, such as 'bert_jax.bin.train', and its arguments.
      code: Python code to execute before the command.
      timeout: time limit in seconds.
    """
    script = f'{code}\nimport runpy, sys\nsys.argv = {[*arguments]!r}\nrunpy.run_module(sys.argv[0], run_name="__main__")'
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout
    )


def run_in_process(name, *arguments):
    """Run a command in this process, which is much faster than `run_command`.

    Args:
      name: module of the command, such as 'bert_jax.bin.train', or path of a script.
      *arguments: its arguments.
    """
    out, err = io.StringIO(), io.StringIO()
    is_script = str(name).endswith('.py')
    folder = [str(pathlib.Path(name).parent)] if is_script else []
    for imported in (name, 'remote'):  # a second launcher must import the module beside it
        sys.modules.pop(imported, None)
    with (
        unittest.mock.patch.object(sys, 'argv', [str(name), *map(str, arguments)]),
        unittest.mock.patch.object(sys, 'path', [*folder, *sys.path]),
        unittest.mock.patch.object(logging.root, 'handlers', [*logging.root.handlers]),
        unittest.mock.patch.object(sys, 'excepthook', sys.excepthook),
        unittest.mock.patch.object(sys, 'unraisablehook', sys.unraisablehook),
        unittest.mock.patch.object(threading, 'excepthook', threading.excepthook),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        if is_script:
            runpy.run_path(str(name), run_name='__main__')
        else:
            runpy.run_module(name, run_name='__main__')
    code = exit_.value.code or 0
    if isinstance(code, str):  # the interpreter would print it
        err.write(f'{code}\n')
        code = 1
    return types.SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


@contextlib.contextmanager
def jobs_in_process():
    """Make `jobs.run` run each job in this process; yield a list to which each job adds what it writes to stderr."""
    outputs = []

    def start(job, _):
        done = run_in_process(*job.arguments)
        outputs.append(done.stderr)
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / jobs.LOG).write_text(done.stderr)
        exited = types.SimpleNamespace(returncode=done.returncode, poll=lambda: done.returncode)
        return jobs._Process(job, exited, 0.0, 0)

    with unittest.mock.patch.object(jobs, '_start', start):
        yield outputs


@functools.partial(jax.jit, static_argnums=0)
def _hidden_states(graph, params, tokens):
    return jnp.stack(module.merge(graph, params).bert(tokens).hidden_states)


def hidden_states(trained, tokens):
    """[L + 1, B, T, D] hidden states of the BERT of a loaded checkpoint, for rows [B, T] without padding."""
    return np.asarray(_hidden_states(trained.graph, trained.params, np.asarray(tokens, np.int32)))


def checkpoint_arrays(workdir, step):
    """Read all arrays of a checkpoint, by path."""
    import orbax.checkpoint as ocp

    arrays = {}
    for item in ('params', 'training'):
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(workdir / 'checkpoints' / str(step) / item)
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            arrays[f'{item}{path}'] = np.asarray(value)
    return arrays


def metric_lines(workdir):
    """Read `metrics.jsonl` without the values that differ between equal runs."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    volatile = ('tokens_per_second', 'mfu')
    return [{k: v for k, v in line.items() if k not in volatile} for line in lines]
