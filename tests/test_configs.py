"""Every shipped config builds, makes an abstract state, and shards under every strategy."""

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
OTHER = ('eval', 'tables')  # configs of other kinds have tests of their own
FILES = sorted(
    p for p in (ROOT / 'configs').rglob('*.py') if p.name != '__init__.py' and p.parent.name not in OTHER
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
        pytest.skip('three heads do not divide by two')
    overrides = [f'mesh.strategy={strategy}', *(['mesh.tensor=2'] if 'tp' in strategy else [])]
    if 'finetune' in spec:  # a checkpoint says how large the model is
        overrides.append('model.size=tiny')
    experiment = experiment_lib.read(spec, overrides + (['mesh.data=4'] if strategy == 'tp' else []))
    if hasattr(experiment.task, 'labels'):
        experiment = experiment_lib.read(
            spec, [*overrides, "task.labels=('B-A', 'O')"] + (['mesh.data=4'] if strategy == 'tp' else [])
        )
    experiment = experiment_lib.complete(experiment, tokenizer)
    task = experiment.make_task(tokenizer)
    partitioner = partitioning.make(experiment.mesh)
    layout = state_lib.layout(
        functools.partial(task.module, experiment.model),
        optim.make(experiment.optim, 1_000_000, batch_size=8, examples=80),
        partitioner,
    )
    assert all(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(layout.shapes))
    split = [s for s in layout.shardings.params.values() if any(s.spec)]
    assert bool(split) == (strategy != 'dp')


def test_config_read_back_from_json_is_the_same(tokenizer):
    for spec in _specs():
        experiment = experiment_lib.read(spec)
        assert experiment_lib.from_config(experiment.as_dict()) == experiment
