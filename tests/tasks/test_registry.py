"""The task registry: each file is a task and implements the protocol."""

import dataclasses
import inspect

import pytest

from bert_jax import tasks
from bert_jax.core.errors import UserError


def test_each_file_is_a_task():
    assert {'mlm', 'classify'} <= set(tasks.names())
    assert tasks.get('mlm').__name__ == 'bert_jax.tasks.mlm'


@pytest.mark.parametrize(
    ('name', 'nearest'), [('mml', 'mlm'), ('clasify', 'classify'), ('Classify', 'classify')]
)
def test_unknown_task_names_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"Unknown task '{name}': did you mean '{nearest}'"):
        tasks.get(name)


@pytest.mark.parametrize('name', ['', '__init__', 'mlm.Config', '../mlm', 'xyzzy'])
def test_other_names_are_unknown_tasks(name):
    with pytest.raises(UserError, match=r'Unknown task .*(known: .*classify.*mlm|did you mean)'):
        tasks.get(name)


@pytest.mark.parametrize('name', tasks.names())
def test_every_task_implements_the_protocol(name):
    module = tasks.get(name)
    assert module.Config().name == name, 'the default of name is the name of the file'
    assert dataclasses.is_dataclass(module.Config)
    assert dataclasses.is_dataclass(module.Task.Data)
    assert list(inspect.signature(module.Task).parameters) == ['config', 'data', 'tokenizer']
    methods = ('example', 'build_model', 'loss', 'flops', 'scores')
    for method in methods if name != 'encode' else ('build_model',):
        expected = [*inspect.signature(getattr(tasks.Task, method)).parameters]
        actual = inspect.signature(getattr(module.Task, method)).parameters
        assert [*actual][: len(expected)] == expected
        assert all(p.default is not p.empty for p in [*actual.values()][len(expected) :])
