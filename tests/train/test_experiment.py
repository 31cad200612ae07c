"""Settings of several sections that contradict each other are rejected."""

import pytest

from bert_jax.core.errors import UserError
from bert_jax.train import experiment

SPANS = {'task': {'name': 'denoise', 'noise': ('spans',)}, 'model': {'name': 'bart', 'size': 'tiny'}}
BILINGUAL = {'task': {'name': 'bilingual'}, 'model': {'name': 'bert', 'size': 'tiny'}}


@pytest.mark.parametrize(
    ('config', 'extra', 'setting'),
    [(SPANS, 100, 'task.noise=spans'), (BILINGUAL, 0, 'task.name=bilingual')],
)
def test_vocabulary_has_room_for_the_entries_of_the_task(tokenizer, config, extra, setting):
    def complete(vocab_size):
        model = {**config['model'], 'vocab_size': vocab_size}
        return experiment.complete(experiment.from_config({**config, 'model': model}), tokenizer).model

    needed = len(tokenizer) + (extra or len(tokenizer))  # of the fake language
    assert complete(0).vocab_size == complete(needed).vocab_size == needed
    for vocab_size in (len(tokenizer), needed - 1):
        with pytest.raises(UserError, match=f'{vocab_size} tokens, but {setting} needs {needed}'):
            complete(vocab_size)


def test_architecture_of_a_checkpoint_is_checked_before_its_values():
    config = {'task': {'name': 'classify'}, 'model': {'name': 'bert', 'size': 'base'}}
    with pytest.raises(UserError, match=r'model\.width is part of the architecture, which init\.checkpoint'):
        experiment.from_config(config, ['init.checkpoint=run', 'model.width=256'])
    experiment.from_config(config, ['init.checkpoint=run', 'model.dropout=0.2'])


@pytest.mark.parametrize('task', ['classify', 'regress', 'choice', 'dna'])
def test_task_chooses_the_pooling_of_a_checkpoint(tokenizer, task):
    labels = {} if task in ('regress', 'choice') else {'labels': ('a', 'b')}

    def complete(pooling, name='bert'):
        model = {'name': name, 'size': 'tiny' if name == 'bert' else 'small'}
        config = {'task': {'name': task, 'pooling': pooling, **labels}, 'model': model}
        return experiment.complete(experiment.from_config(config), tokenizer)

    assert [complete(pooling).model.pooling for pooling in ('', 'cls', 'mean')] == ['cls', 'cls', 'mean']
    with pytest.raises(UserError, match="task.pooling='mean' needs a BERT"):
        complete('mean', 'gpt')


def test_phases_of_a_downstream_task_are_rejected():
    config = {'task': {'name': 'classify'}, 'model': {'name': 'bert', 'size': 'tiny'}}
    experiment.from_config(config)
    with pytest.raises(UserError, match='train.phases has no effect .* task.name=classify'):
        experiment.from_config(config, ['train.phases=((2, 16, 8),)'])
    experiment.from_config({**config, 'task': {'name': 'mlm'}}, ['train.phases=((2, 16, 8),)'])


@pytest.mark.parametrize(
    ('task', 'model', 'needed'),
    [('mlm', 'gpt', 'bert'), ('rtd', 'gpt', 'bert'), ('clm', 'bert', 'gpt'), ('denoise', 'gpt', 'bart')],
)
def test_models_that_a_task_does_not_train_are_refused(tokenizer, task, model, needed):
    config = experiment.from_config({'task': {'name': task}, 'model': {'name': model, 'size': 'small'}})
    with pytest.raises(UserError, match=f'task.name={task} needs model.name={needed}, not {model}'):
        config.make_task(tokenizer)


@pytest.mark.parametrize(
    ('section', 'value', 'message'),
    [
        ('train', 'text', "sets train to 'text'. Set it to a section"),
        ('optim', [1], r'sets optim to \[1\]. Set it to a section'),
        ('task', {'name': 7}, 'does not set task.name'),
        ('model', {'name': ['bert']}, 'does not set model.name'),
        ('task', None, 'does not set task.name'),
    ],
)
def test_value_instead_of_a_section_or_a_name_is_rejected(section, value, message):
    config = {'task': {'name': 'classify'}, 'model': {'name': 'bert', 'size': 'tiny'}, section: value}
    with pytest.raises(UserError, match=message):
        experiment.from_config(config)
