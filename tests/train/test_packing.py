"""A run that packs its texts: it resumes exactly, records its choice, and is scored as without packing."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.core import partitioning
from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.pipeline import Batches
from bert_jax.data.rows import HEADER
from bert_jax.data.text_tuples import TupleConfig
from bert_jax.evals.scoring import Scorer
from bert_jax.modeling import module
from bert_jax.tasks import classify, embed, mlm
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import packing, resume
from bert_jax.train.experiment import TrainConfig
from tests.modeling import tiny
from tests.runs import TINY, checkpoint_arrays, finetune, metric_lines

SETTINGS = (
    'train.packing=on',
    'train.steps=6',
    'train.eval_every=3',
    'checkpoint.every=3',
    'checkpoint.keep=3',
)


@pytest.fixture(scope='module')
def packed(tmp_path_factory, pretrained, labeled):
    """Working directory of a fine-tuning run with packing, of 6 steps over more than one epoch."""
    workdir = tmp_path_factory.mktemp('packed')
    assert finetune(workdir, pretrained, labeled, *SETTINGS) == 0
    return workdir


def test_resumed_run_equals_uninterrupted_run_bitwise(tmp_path, pretrained, labeled, packed):
    shutil.copytree(packed, tmp_path / 'resumed')
    shutil.rmtree(tmp_path / 'resumed' / 'checkpoints' / '6')
    assert finetune(tmp_path / 'resumed', pretrained, labeled, *SETTINGS) == 0
    assert metric_lines(tmp_path / 'resumed') == metric_lines(packed)
    resumed, expected = (checkpoint_arrays(run, 6) for run in (tmp_path / 'resumed', packed))
    for name, array in expected.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


def test_scores_are_those_of_one_text_a_row(labeled, packed):
    found = []
    for setting in ('on', 'off'):
        overrides = (f'data.source={labeled}', f'train.packing={setting}', 'train.eval_batch_size=8')
        found.append(Scorer(f'{TINY}:classify', overrides)(packed)['scores'])
    assert found[0].pop('confusion') == found[1].pop('confusion')
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    lines = [line for line in metric_lines(packed) if 'eval/loss' in line]
    assert lines[-1]['eval/loss'] == pytest.approx(found[1]['loss'], abs=1e-5)


@pytest.mark.parametrize(('platform', 'expected'), [('cpu', 'off'), ('gpu', 'on'), ('tpu', 'on')])
def test_config_records_the_choice_for_the_devices(platform, expected, monkeypatch):
    monkeypatch.setattr(partitioning.Partitioner, 'platform', platform)
    partitioner = partitioning.make(partitioning.MeshConfig())
    experiment = experiment_lib.read(f'{TINY}:classify')
    assert packing.resolve(experiment, classify.Task, partitioner).train.packing == expected


def test_run_keeps_the_choice_that_it_began_with(pretrained, labeled, packed):
    assert json.loads((packed / 'config.json').read_text())['train']['packing'] == 'on'
    with pytest.raises(UserError, match=r'train\.packing was .on., is .off.'):
        finetune(packed, pretrained, labeled, *SETTINGS, 'train.packing=auto')


def test_a_run_of_a_task_that_could_not_pack_resumes_without_packing(packed):
    saved = resume.read_saved_config(packed)
    saved['train']['packing'] = 'auto'
    for packing_now, message in (('off', None), ('on', r'train\.packing was .auto., is .on.')):
        config = {**saved, 'train': {**saved['train'], 'packing': packing_now}}
        with contextlib.nullcontext() if message is None else pytest.raises(UserError, match=message):
            resume.check_config(packed, saved, config)


def test_task_without_packed_rows_is_reported():
    partitioner = partitioning.make(partitioning.MeshConfig())
    experiment = experiment_lib.read(f'{TINY}:pretrain', ('train.packing=on',))
    with pytest.raises(UserError, match='task.name=mlm does not support train.packing=on with this config'):
        packing.resolve(experiment, mlm.Task, partitioner)


@pytest.mark.parametrize(('setting', 'expected'), [('pooling', 'max'), ('chunks', 2)])
def test_embedding_packs_only_with_some_settings(setting, expected, word_tokenizer):
    task, data = embed.Task, TupleConfig()
    assert task(embed.Config(), data, word_tokenizer).supports_packing
    assert not task(embed.Config(**{setting: expected}), data, word_tokenizer).supports_packing


def test_packed_texts_take_less_than_half_of_the_flops_of_padded_rows():
    rng = np.random.default_rng(0)
    rows = np.zeros((512, HEADER + 64), np.uint32)
    rows[:, 0] = rows[:, 1] = np.clip(rng.gamma(1.8, 6, len(rows)) + 3, 3, 64)  # like sentences of SST-2
    task = classify.Task(classify.Config(labels=('a', 'b')), LabeledConfig(length=64), None)
    graph, params = tiny.graph_and_params(task.build_model, max_positions=64, width=128, mlp_width=512)

    def count_flops(shape):
        batch = Batches(rows, task.example, 32, 0, packing=shape)(0)

        def loss(params):
            return task.loss(module.merge(graph, params), batch, None).losses['cross_entropy'].value()

        return jax.jit(jax.grad(loss)).lower(params).cost_analysis()['flops']

    shape = packing.make(task, rows, 32, 1, TrainConfig())
    assert 1.8 * count_flops(shape) < count_flops(None)


def test_operations_of_padded_and_packed_rows_count_each_text_alone():
    lengths = np.array([3, 5])
    padded = np.arange(8) < lengths[:, None]
    packed = np.array([[1, 1, 1, 2, 2, 2, 2, 2]])
    assert tasks.attention_size(padded) == tasks.attention_size(packed) == (8, (3**2 + 5**2) / 8)
    assert tasks.attention_size(np.zeros((2, 3), bool)) == (0, 0)
