"""Every config in `configs/` builds an abstract state, and every strategy shards its parameters."""

import functools
import inspect
import pathlib

import jax
import pytest

from bert_jax.core import config as config_lib
from bert_jax.core import partitioning
from bert_jax.core.errors import UserError
from bert_jax.modeling import module
from bert_jax.train import convert
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import state as state_lib
from configs.pretrain import reference
from tests.runs import ROOT

ARGUMENTS = {
    'pretrain/bert': ['tiny', 'base', 'large'],
    'pretrain/cpu': ['128', '192', 'modern'],
    'pretrain/electra': ['base', 'small', 'cpu'],
    'pretrain/gpt': ['small', 'medium'],
    'pretrain/bart': ['base', 'large'],
    'pretrain/multilingual': ['cpu', 'base'],
    'pretrain/reference': [
        f'{model},{machine}' for model in reference.MODELS for machine in reference.PHASES
    ],
    'finetune/dna': ['splice', 'h3'],
    'finetune/choice': ['swag', 'hellaswag'],
    'finetune/seq2seq': ['', 'dialogsum', 'multi30k/en-de'],
    'finetune/long_squad': ['128', '2048'],
    'finetune/medquad': ['128', '2048'],
    'finetune/glue': ['cola', 'mnli', 'stsb'],
    'finetune/ner': ['en', 'en,sum_all'],
    'finetune/sst2': ['all', 'few'],
    'finetune/squad': ['v1.1', 'v2.0', 'xquad/zh'],
    'finetune/xnli': ['', 'en'],
    'quickstart': ['pretrain', 'finetune'],
}
OTHER_KINDS = ('eval', 'speedrun', 'tables')  # tested elsewhere
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


# Last parts of the paths of all parameters that the models have. A table of relative positions is an embedding;
# `layer_weights` and `gamma` mix layers.
BIASES_AND_SCALES = {'bias', 'logits_bias', 'scale'}
WEIGHTS = {
    'kernel',
    'recurrent_kernel',
    'token_embedding',
    'position_embedding',
    'segment_embedding',
    'table',
}
WEIGHTS |= {'layer_weights', 'gamma'}


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
    partitioner = partitioning.make(experiment.mesh)
    layout = state_lib.make_layout(
        make_model, experiment.optim, 1_000_000, partitioner, batch_size=64, examples=640
    )
    assert all(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(layout.shapes))
    graph, shapes, axes = module.abstract(make_model)
    last = {path: path.rpartition('/')[2] for path in shapes}
    assert {*last.values()} <= BIASES_AND_SCALES | WEIGHTS
    undecayed = module.undecayed(graph, shapes)
    assert undecayed == {path for path in shapes if last[path] in BIASES_AND_SCALES}
    assert any(last[path] == 'scale' for path in undecayed)
    for strategy in partitioning.STRATEGIES:
        has_tensor_axis = 'tp' in strategy
        if has_tensor_axis and any(m.heads % 2 for m in task.architectures(experiment.model)):
            continue  # heads cannot be split in two
        sizes = {'tensor': 2 * has_tensor_axis, 'data': 4 * (strategy == 'tp')}
        partitioner = partitioning.make(partitioning.MeshConfig(strategy, **sizes))
        shardings = [partitioner.sharding(axes[name], shapes[name].shape, name) for name in shapes]
        assert any(any(s.spec) for s in shardings) == (strategy != 'dp'), strategy


# Small models that train fastest with blocks that no class of transformers has.
NOT_EXPORTED = ('cpu.py:128', 'cpu.py:192', 'cpu_bart.py', 'gpu.py', 'multilingual.py:cpu')


@pytest.mark.parametrize(
    'spec',
    [s for s in _specs() if '/pretrain/' in s or s.endswith(':pretrain')],
    ids=lambda s: pathlib.Path(s).stem,
)
def test_pretrained_models_can_be_exported(spec, tokenizer, caplog):
    experiment = experiment_lib.complete(experiment_lib.read(spec), tokenizer)
    caplog.set_level('INFO')
    convert.log_export_limits(experiment, tokenizer)
    assert ('cannot be exported' in caplog.text) == spec.endswith(NOT_EXPORTED)


def test_config_survives_conversion_to_dict(tokenizer):
    for spec in _specs():
        experiment = experiment_lib.read(spec)
        assert experiment_lib.from_config(experiment.as_dict()) == experiment


WITH_ARGUMENT = {
    file: parameters[0].default
    for file in sorted((ROOT / 'configs').rglob('*.py'))
    if 'def get_config(' in file.read_text()
    and (parameters := [*inspect.signature(config_lib.load_module(str(file)).get_config).parameters.values()])
}
# By config whose arguments are an open set, such as that of all languages: what the message lists.
OPEN = {'ner': ['LANGUAGE', 'LANGUAGE,concat_last_four'], 'pos': ['LANGUAGE_TREEBANK']}


# Configs whose argument is any source of data.
GENERAL = ('choice', 'classify', 'embed', 'qa', 'regress', 'seq2seq', 'tag')


@pytest.mark.parametrize(
    'file', [f for f in WITH_ARGUMENT if f.stem not in GENERAL], ids=lambda file: file.stem
)
def test_unknown_argument_is_refused_with_a_list(file):
    known = {WITH_ARGUMENT[file], *ARGUMENTS.get(str(file.relative_to(ROOT / 'configs').with_suffix('')), ())}
    known = {word for word in known if isinstance(word, str) and word}  # without an empty or missing default
    misspelled = (
        [] if file.stem in OPEN else [f'{word}{end}' for word in known for end in ('x', '/en', ',last')]
    )
    for typo in ('typo', *misspelled):
        with pytest.raises(UserError, match=f'does not accept the argument {typo!r}') as refused:
            config_lib.load(f'{file}:{typo}')
        assert all(word in str(refused.value) for word in OPEN.get(file.stem, known)), refused.value


@pytest.mark.parametrize('name', GENERAL)
@pytest.mark.parametrize('source', ['glue/sst2:2.0.0', 'my data/{split}.csv'])
def test_general_configs_take_any_source(name, source):
    spec = f'{ROOT}/configs/finetune/{name}.py'
    experiment = experiment_lib.read(f'{spec}:{source}')
    assert experiment.data.source == source
    assert experiment == experiment_lib.read(spec, [f'data.source={source}'])
    with pytest.raises(UserError, match=r"data\.source is empty\. Set it to a TFDS name such as 'glue/sst2'"):
        experiment_lib.read(spec).check_splits()


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_values_may_change_their_type(file):
    get_config = config_lib.load_module(str(file)).get_config
    arg = ARGUMENTS.get(str(file.relative_to(ROOT / 'configs').with_suffix('')), [''])[0]
    config = get_config(arg) if arg else get_config()
    config.train.steps = '30 epochs'
    config.train.steps = 30
    assert experiment_lib.from_config(config).train.steps == 30


def test_configs_with_an_argument_are_found():
    assert {'choice', 'squad', 'lm', 'miniatures', 'cpu', 'quickstart'} <= {
        file.stem for file in WITH_ARGUMENT
    }
