"""Every config in `configs/` builds an abstract state, and every strategy shards its parameters."""

import functools
import pathlib

import jax
import pytest

from bert_jax import optim
from bert_jax.core import partitioning
from bert_jax.modeling import module
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import state as state_lib
from tests.runs import ROOT

ARGUMENTS = {
    'pretrain/bert': ['tiny', 'base', 'large'],
    'pretrain/cpu': ['128', '192'],
    'pretrain/gpt': ['small', 'medium'],
    'pretrain/bart': ['base', 'large'],
    'pretrain/multilingual': ['cpu', 'base'],
    'finetune/dna': ['splice', 'h3'],
    'finetune/choice': ['swag', 'hellaswag'],
    'finetune/glue': ['cola', 'mnli', 'stsb'],
    'finetune/ner': ['en', 'en,sum_all'],
    'finetune/sst2': ['all', 'few'],
    'finetune/squad': ['v1.1', 'v2.0', 'xquad/zh'],
    'finetune/xnli': ['', 'en'],
    'quickstart': ['pretrain', 'finetune'],
}
OTHER_KINDS = ('eval', 'tables')  # tested elsewhere
FILES = sorted(
    p
    for p in (ROOT / 'configs').rglob('*.py')
    if p.name != '__init__.py' and p.parent.name not in OTHER_KINDS
)


def _specs():
    for file in FILES:
        name = str(file.relative_to(ROOT / 'configs').with_suffix(''))
        for arg in ARGUMENTS.get(name, ['']):
            yield f'{file}:{arg}' if arg else str(file)


@pytest.mark.parametrize('spec', _specs(), ids=lambda s: pathlib.Path(s).stem)
def test_config_builds_and_shards(spec, tokenizer):
    # The size of a fine-tuned model is that of its checkpoint.
    overrides = ['model.size=tiny'] if 'finetune' in spec else []
    experiment = experiment_lib.read(spec, overrides)
    if hasattr(experiment.task, 'labels'):
        experiment = experiment_lib.read(spec, [*overrides, "task.labels=('B-A', 'O')"])
    experiment = experiment_lib.complete(experiment, tokenizer)
    task = experiment.make_task(tokenizer)
    make_model = functools.partial(task.build_model, experiment.model)
    optimizer = optim.make_optimizer(experiment.optim, 1_000_000, batch_size=8, examples=80)
    layout = state_lib.make_layout(make_model, optimizer, partitioning.make(experiment.mesh))
    assert all(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(layout.shapes))
    _, shapes, axes = module.abstract(make_model)
    for strategy in partitioning.STRATEGIES:
        has_tensor_axis = 'tp' in strategy
        if has_tensor_axis and experiment.model.heads % 2:  # cannot be split in two
            continue
        sizes = {'tensor': 2 * has_tensor_axis, 'data': 4 * (strategy == 'tp')}
        partitioner = partitioning.make(partitioning.MeshConfig(strategy, **sizes))
        shardings = [partitioner.sharding(axes[name], shapes[name].shape, name) for name in shapes]
        assert any(any(s.spec) for s in shardings) == (strategy != 'dp'), strategy


def test_config_survives_conversion_to_dict(tokenizer):
    for spec in _specs():
        experiment = experiment_lib.read(spec)
        assert experiment_lib.from_config(experiment.as_dict()) == experiment
