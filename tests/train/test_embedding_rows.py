"""Steps that compute the gradient of the token embedding by rows equal those that compute it whole."""

import functools

import jax
import numpy as np
import pytest

from bert_jax import optim, tasks
from bert_jax.core import partitioning
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data.rows import HEADER
from bert_jax.modeling import bart, bert, gpt
from bert_jax.tasks import choice, classify, qa, regress, tag
from bert_jax.train import embedding_rows
from bert_jax.train import state as state_lib
from bert_jax.train.step import make_train_step
from tests.runs import slow_after

VOCAB, LENGTH, BATCH = 640, 12, 4
MODELS = {'bert': bert.Config, 'gpt': gpt.Config, 'bart': bart.Config}
TASKS = {
    'classify': (classify, dict(labels=('a', 'b'))),
    'regress': (regress, {}),
    'choice': (choice, {}),
    'tag': (tag, dict(labels=('O', 'B-X'))),
    'qa': (qa, {}),
}


def make_task(name):
    module, config = TASKS[name]
    windows = dict(stride=1, max_question_length=4) if name == 'qa' else {}
    return module.Task(module.Config(**config), module.Task.Data(length=LENGTH, **windows), None)


def make_batch(task, seed):
    """Make a batch of random texts, with other tokens and lengths for each seed."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((BATCH, 2, HEADER + LENGTH), np.uint32)
    rows[..., HEADER:] = rng.integers(5, 90, rows[..., HEADER:].shape)
    rows[..., 0] = rows[..., 1] = rng.integers(4, LENGTH, (BATCH, 1))
    rows[..., 2] = rng.integers(0, 2, (BATCH, 1))
    if isinstance(task, tag.Task):
        rows[:, 1, HEADER:] %= 3
    elif not isinstance(task, choice.Task):
        rows = rows[:, 0]
    examples = [task.example(row, rng) for row in rows]
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def run(task, model, devices=1, **optimizer):
    """Return the state after three steps, the metrics of each, and the step."""
    config = MODELS[model](
        size='tiny', width=16, mlp_width=32, vocab_size=VOCAB, dropout=0.0, attention_dropout=0.0
    )
    partitioner = partitioning.make(MeshConfig(), jax.devices()[:devices])
    # A large epsilon, because Adam amplifies rounding in gradients near zero.
    settings = optim.OptimConfig(**{'learning_rate': 0.01, 'warmup': 0, 'eps': 1e-3} | optimizer)
    layout, step = make_train_step(task, config, settings, 10, partitioner)
    state, metrics = state_lib.create(layout, 0), []
    for seed in range(3):
        batch = partitioner.global_batch(make_batch(task, seed))
        state, values = step(state, batch)
        metrics.append({k: float(v.value()) for k, v in values.items()})
    return jax.device_get(state), metrics, functools.partial(step, state, batch)


@pytest.mark.parametrize(
    ('name', 'model', 'optimizer'),
    slow_after(
        6,
        [
            *((name, 'bert', {}) for name in TASKS),
            ('classify', 'bert', dict(name='muon')),
            ('classify', 'gpt', {}),
            ('classify', 'bart', {}),
            ('classify', 'bert', dict(bias_correction=False, clip_norm=0.1)),
            ('classify', 'bert', dict(name='lamb', clip_norm=0.0)),
            ('classify', 'bert', dict(name='stable_adamw', learning_rate=0.1, b2=0.9, clip_norm=0.0)),
            ('classify', 'bert', dict(frozen=('bert/token_embedding',))),
        ],
    ),
    ids=str,
)
def test_rows_equal_whole_embedding(name, model, optimizer, monkeypatch):
    task = make_task(name)
    state, metrics, step = run(task, model, **optimizer)
    monkeypatch.setattr(embedding_rows, 'table_path', lambda *_: '')
    whole_state, whole_metrics, whole_step = run(task, model, **optimizer)
    for actual, expected in zip(metrics, whole_metrics, strict=True):
        assert actual == pytest.approx(expected, rel=1e-5, abs=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), state, whole_state)
    # The norm of the gradient reads it whole.
    reductions = f'(tensor<{VOCAB}x16xf32>, tensor<f32>) -> tensor<f32>'
    counts = [s.func.lower(*s.args).as_text().count(reductions) for s in (step, whole_step)]
    assert counts[0] < counts[1] or optimizer.get('frozen')


def test_only_tasks_without_vocabulary_outputs_use_rows():
    partitioners = [partitioning.make(MeshConfig(), jax.devices()[:n]) for n in (1, 2)]
    paths = {
        name: [embedding_rows.table_path(tasks.get(name).Task, bert.Config(), p) for p in partitioners]
        for name in tasks.names()
    }
    assert {name for name, path in paths.items() if path[0]} == {*TASKS, 'dna'}
    assert paths['tag'] == ['bert/token_embedding', '']


def test_long_batches_use_the_whole_embedding():
    params, batch = {'t': np.ones((20, 3))}, {'tokens': np.arange(11)}
    assert embedding_rows.select(params, batch, 't') == (params, batch, {})
