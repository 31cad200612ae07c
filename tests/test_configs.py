"""Every config in `configs/` builds an abstract state that can be sharded by every strategy."""

import functools
import pathlib

import jax
import pytest

from bert_jax import optim
from bert_jax.core import partitioning
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
@pytest.mark.parametrize('strategy', partitioning.STRATEGIES)
def test_config_builds_and_shards(spec, strategy, tokenizer):
    if spec.endswith(('cpu.py:192', ':cpu')) and 'tp' in strategy:
        pytest.skip('three attention heads cannot be split in two')
    overrides = [f'mesh.strategy={strategy}', *(['mesh.tensor=2'] if 'tp' in strategy else [])]
    if 'finetune' in spec:  # the size is that of the checkpoint
        overrides.append('model.size=tiny')
    experiment = experiment_lib.read(spec, overrides + (['mesh.data=4'] if strategy == 'tp' else []))
    if hasattr(experiment.task, 'labels'):
        experiment = experiment_lib.read(
            spec, [*overrides, "task.labels=('B-A', 'O')"] + (['mesh.data=4'] if strategy == 'tp' else [])
        )
    experiment = experiment_lib.complete(experiment, tokenizer)
    task = experiment.make_task(tokenizer)
    partitioner = partitioning.make(experiment.mesh)
    layout = state_lib.make_layout(
        functools.partial(task.build_model, experiment.model),
        optim.make_optimizer(experiment.optim, 1_000_000, batch_size=8, examples=80),
        partitioner,
    )
    assert all(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(layout.shapes))
    sharded = [s for s in layout.shardings.params.values() if any(s.spec)]
    assert bool(sharded) == (strategy != 'dp')


def test_config_survives_conversion_to_dict(tokenizer):
    for spec in _specs():
        experiment = experiment_lib.read(spec)
        assert experiment_lib.from_config(experiment.as_dict()) == experiment
