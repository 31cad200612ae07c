"""Config files, overrides, and sections."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from ml_collections import ConfigDict

from bert_jax.core import config as config_lib
from bert_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Section:
    path: str
    steps: int = 10
    rate: float = 0.5
    every: int | float | str = 0.2
    shuffle: bool = True
    sources: tuple[str, ...] = ()
    phases: tuple[tuple[int, ...], ...] = ()
    kind: Literal['wide', 'deep'] = 'wide'
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limit: int | None = None
    scale: float | int = 1.0


def section(**values: Any) -> Section:
    return config_lib.section(Section, {'path': 'a', **values}, 'data')


def config() -> ConfigDict:
    return ConfigDict(
        {'data': {**dataclasses.asdict(Section('a')), 'phases': ()}, 'optim': {'adam': {'eps': 1e-6}}}
    )


def overridden(*assignments: str) -> Section:
    c = config()
    config_lib.override(c, assignments)
    return config_lib.section(Section, c.data, 'data')


def test_missing_keys_take_their_defaults():
    assert section() == Section('a')


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UserError, match=r"'data.shufle': did you mean 'shuffle'\?"):
        section(shufle=False)


def test_a_key_like_no_other_lists_those_known():
    with pytest.raises(UserError, match=r'known: every, kind, limit, path, phases, rate, renames'):
        section(qqqqqq=1)


def test_a_key_without_default_must_be_given():
    with pytest.raises(UserError, match=r"needs 'data.path'"):
        config_lib.section(Section, {}, 'data')


@pytest.mark.parametrize(
    ('assignment', 'field', 'value'),
    [
        ('data.steps=3', 'steps', 3),
        ('data.steps=3.0', 'steps', 3),
        ('data.rate=1e-3', 'rate', 1e-3),
        ('data.rate=2', 'rate', 2.0),
        ('data.every=5', 'every', 5),
        ('data.every=0.5', 'every', 0.5),
        ('data.every=3 epochs', 'every', '3 epochs'),
        ('data.shuffle=false', 'shuffle', False),
        ('data.shuffle=False', 'shuffle', False),
        ('data.path=b.txt', 'path', 'b.txt'),
        ('data.path="7"', 'path', '7'),
        ('data.path=key=value', 'path', 'key=value'),
        ('data.path=', 'path', ''),
        ('data.sources=("a.txt", "b.txt")', 'sources', ('a.txt', 'b.txt')),
        ('data.sources=a.txt', 'sources', ('a.txt',)),
        ('data.sources=["a.txt"]', 'sources', ('a.txt',)),
        ('data.phases=((90, 128, 8), (10, 512, 2))', 'phases', ((90, 128, 8), (10, 512, 2))),
        ('data.phases=90,128,8', 'phases', ((90, 128, 8),)),
        ('data.kind=deep', 'kind', 'deep'),
        ('data.limit=4', 'limit', 4),
        ('data.scale=4', 'scale', 4),
        ('data.every=5.0', 'every', 5.0),
    ],
)
def test_an_override_sets_a_value_of_the_right_type(assignment, field, value):
    result = getattr(overridden(assignment), field)
    assert result == value
    assert type(result) is type(value)


def test_the_last_override_wins():
    assert overridden('data.steps=3', 'data.steps=4').steps == 4


def test_an_override_reaches_a_section_in_a_section():
    c = config()
    config_lib.override(c, ['optim.adam.eps=1e-8'])
    assert c.optim.adam.eps == 1e-8


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('data.stepz=3', r"'data.stepz': did you mean 'steps'\?"),
        ('dat.steps=3', r"'dat': did you mean 'data'\?"),
        ('optim.adam.epz=3', r"'optim.adam.epz': did you mean 'eps'\?"),
        ('data.steps.more=3', r"'data.steps.more': 'data.steps' is no section"),
        ('data=3', 'section'),
        ('data.steps', r'write --config\.data\.steps=VALUE'),
    ],
)
def test_a_wrong_override_says_what_is_wrong(assignment, message):
    with pytest.raises(UserError, match=message):
        config_lib.override(config(), [assignment])


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('data.steps=many', r"data\.steps='many' is of type str, but int is needed"),
        ('data.steps=1.5', 'float, but int'),
        ('data.steps=True', 'bool, but int'),
        ('data.rate=high', 'str, but float'),
        ('data.rate=True', 'bool, but float'),
        ('data.shuffle=1', 'int, but bool'),
        ('data.every=True', 'bool, but int | float | str'),
        ('data.sources=(1, 2)', 'int, but str'),
        ('data.phases=((1, "a"),)', 'str, but int'),
        ('data.kind=depe', r"data\.kind='depe' is not a choice: did you mean 'deep'\?"),
        ('data.limit=few', 'str, but'),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(assignment, message):
    with pytest.raises(UserError, match=message):
        overridden(assignment)


def test_text_that_is_no_python_value_stays_text():
    assert overridden('data.path={[]: 1}').path == '{[]: 1}'


def test_a_section_takes_a_nested_config_dict():
    values = ConfigDict({'path': 'a', 'renames': {'old': 'new'}, 'sources': ['x']})
    made = config_lib.section(Section, values, 'data')
    assert made == Section('a', renames={'old': 'new'}, sources=('x',))
    assert type(made.renames) is dict


def test_a_section_made_into_json_comes_back():
    made = section(phases=((1, 2, 3),), renames={'b': 'c', 'a': 'd'}, every='3 epochs')
    text = config_lib.to_json({'data': made, 'b': ConfigDict({'c': (1, 2)})})
    read = json.loads(text)
    assert config_lib.section(Section, read['data'], 'data') == made
    assert read['b'] == {'c': [1, 2]}
    assert text == config_lib.to_json(dict(reversed(read.items())))


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / 'config.py'
        path.write_text('from ml_collections import ConfigDict\n' + text)
        return str(path)

    return write


WITH_ARGUMENT = """
def get_config(arg='small'):
    return ConfigDict({'width': {'small': 1, 'large': 2}[arg]})
"""


def test_a_config_file_runs_with_and_without_its_argument(write):
    path = write(WITH_ARGUMENT)
    assert config_lib.load(path).width == 1
    assert config_lib.load(f'{path}:large').width == 2
    assert config_lib.load(write('def get_config(): return ConfigDict({"a": 3})')).a == 3


@pytest.mark.parametrize(
    ('text', 'arg', 'message'),
    [
        (WITH_ARGUMENT, ':huge', r"does not accept the argument 'huge'"),
        ('def get_config(): return ConfigDict()', ':small', r"'small' after the colon means nothing"),
        ('def get_config(size): return ConfigDict()', '', 'argument'),
        ('get_cfg = None', '', r'no get_config\(\)'),
        ('import no_such_package', '', 'no_such_package'),
        ('def get_config(:', '', 'config.py'),
    ],
)
def test_a_wrong_config_file_ends_in_a_sentence(write, text, arg, message):
    with pytest.raises(UserError, match=message):
        config_lib.load(write(text) + arg)


@pytest.mark.parametrize('name', ['missing.py', 'missing.py:tiny', '.'])
def test_a_missing_config_file_ends_in_a_sentence(tmp_path, name):
    with pytest.raises(UserError, match='no config file'):
        config_lib.load(str(tmp_path / name))


def test_a_config_that_is_not_python_is_refused(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(UserError, match='not a Python file'):
        config_lib.load(str(tmp_path / 'config.json'))
