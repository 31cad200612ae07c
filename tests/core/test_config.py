"""Config files, overrides and sections."""

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


def build_section(**values: Any) -> Section:
    return config_lib.build_section(Section, {'path': 'a', **values}, 'data')


def make_config() -> ConfigDict:
    return ConfigDict(
        {'data': {**dataclasses.asdict(Section('a')), 'phases': ()}, 'optim': {'adam': {'eps': 1e-6}}}
    )


def apply_overrides(*assignments: str) -> Section:
    c = make_config()
    config_lib.override(c, assignments)
    return config_lib.build_section(Section, c.data, 'data')


def test_long_names_are_shortened_in_messages():
    message = config_lib.did_you_mean('x', ['y' * 5000, 'short'])
    assert message == f'known: short, {"y" * 97}....'


def test_names_with_line_breaks_are_one_line():
    assert config_lib.did_you_mean('x', ['a\r\nb', 'c']) == 'known: a b, c.'
    assert config_lib.did_you_mean('abcd', ['abc\nd']) == "did you mean 'abc d'?"


def test_number_too_large_for_a_float_is_an_error():
    with pytest.raises(UserError, match=r'data\.rate=10+ is of type int'):
        build_section(rate=10**400)


def test_config_json_that_is_nested_too_deep_is_an_error(tmp_path):
    (file := tmp_path / 'config.json').write_text('[' * 100_000)
    with pytest.raises(UserError, match=r'is not the config\.json of a run \(too many values'):
        config_lib.load(str(file))


def test_missing_keys_take_defaults():
    assert build_section() == Section('a')


def test_unknown_key_suggests_closest():
    with pytest.raises(UserError, match=r"'data.shufle': did you mean 'shuffle'\?"):
        build_section(shufle=False)


def test_unknown_key_without_close_match_lists_known_keys():
    with pytest.raises(UserError, match=r'known: every, kind, limit, path, phases, rate, renames'):
        build_section(qqqqqq=1)


def test_of_many_names_the_closest_are_listed():
    names = {*(f'x{i}' for i in range(30)), 'learning_rate', 'learning_rates'}
    hint = config_lib.did_you_mean('learning_rat', names)
    assert hint.startswith("did you mean 'learning_rate'? Others: learning_rates, x")
    assert hint.endswith(', and 11 more.')
    assert config_lib.did_you_mean('a', ()) == 'known: none.'


def test_key_without_default_is_required():
    with pytest.raises(UserError, match=r"does not set 'data.path'"):
        config_lib.build_section(Section, {}, 'data')


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
def test_override_converts_value_to_type_of_field(assignment, field, value):
    result = getattr(apply_overrides(assignment), field)
    assert result == value
    assert type(result) is type(value)


def test_last_override_wins():
    assert apply_overrides('data.steps=3', 'data.steps=4').steps == 4


def test_override_in_nested_section():
    c = make_config()
    config_lib.override(c, ['optim.adam.eps=1e-8'])
    assert c.optim.adam.eps == 1e-8


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('data.stepz=3', r"'data.stepz': did you mean 'steps'\?"),
        ('dat.steps=3', r"'dat': did you mean 'data'\?"),
        ('optim.adam.epz=3', r"'optim.adam.epz': did you mean 'eps'\?"),
        ('data.steps.more=3', r"'data.steps.more': 'data.steps' is a value, not a section"),
        ('data=3', 'section'),
        ('data.steps', r'Write --config\.data\.steps=VALUE'),
    ],
)
def test_invalid_override_is_explained(assignment, message):
    with pytest.raises(UserError, match=message):
        config_lib.override(make_config(), [assignment])


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('data.steps=many', r"data\.steps='many' is of type str\. Set a value of type int"),
        ('data.steps=1.5', 'float. Set a value of type int'),
        ('data.steps=True', 'bool. Set a value of type int'),
        ('data.rate=high', 'str. Set a value of type float'),
        ('data.rate=True', 'bool. Set a value of type float'),
        ('data.shuffle=1', 'int. Set a value of type bool'),
        ('data.every=True', r'bool. Set a value of type int \| float \| str'),
        ('data.sources=(1, 2)', 'int. Set a value of type str'),
        ('data.phases=((1, "a"),)', 'str. Set a value of type int'),
        ('data.kind=depe', r"data\.kind='depe' is not a choice: did you mean 'deep'\?"),
        ('data.limit=few', 'str. Set a value of type'),
    ],
)
def test_value_of_wrong_type_is_rejected(assignment, message):
    with pytest.raises(UserError, match=message):
        apply_overrides(assignment)


def test_section_instead_of_a_value_is_shown_on_one_line():
    with pytest.raises(UserError) as e:
        build_section(steps=ConfigDict({'a': 1, 'b': 2}))
    assert str(e.value) == "data.steps={'a': 1, 'b': 2} is of type dict. Set a value of type int."


def test_invalid_python_literal_stays_text():
    assert apply_overrides('data.path={[]: 1}').path == '{[]: 1}'


def test_nested_config_dict_becomes_plain_dict():
    values = ConfigDict({'path': 'a', 'renames': {'old': 'new'}, 'sources': ['x']})
    section = config_lib.build_section(Section, values, 'data')
    assert section == Section('a', renames={'old': 'new'}, sources=('x',))
    assert type(section.renames) is dict


def test_section_survives_json_round_trip():
    section = build_section(phases=((1, 2, 3),), renames={'b': 'c', 'a': 'd'}, every='3 epochs')
    text = config_lib.to_json({'data': section, 'b': ConfigDict({'c': (1, 2)})})
    read = json.loads(text)
    assert config_lib.build_section(Section, read['data'], 'data') == section
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

WITH_CHOICES = """
def get_config(arg):
    if arg not in ('base', 'large'):
        raise ValueError('choose from base, large.')
    return ConfigDict()
"""


def test_config_file_with_and_without_argument(write):
    path = write(WITH_ARGUMENT)
    assert config_lib.load(path).width == 1
    assert config_lib.load(f'{path}:large').width == 2
    assert config_lib.load(write('def get_config(): return ConfigDict({"a": 3})')).a == 3


@pytest.mark.parametrize(
    ('text', 'arg', 'message'),
    [
        (WITH_ARGUMENT, ':huge', r"does not accept the argument 'huge'"),
        ('def get_config(): return ConfigDict()', ':small', r"takes no argument\. Remove ':small'"),
        ('def get_config(size): return ConfigDict()', '', 'needs an argument, as in .*: see the file'),
        (WITH_CHOICES, '', 'needs an argument, as in .*: choose from base, large'),
        (WITH_CHOICES, ':larg', "does not accept the argument 'larg': choose from base, large"),
        ('get_cfg = None', '', r'does not define get_config\(\)'),
        ('def get_config(): pass', '', r'get_config\(\) of .* returns None\. Return a ConfigDict from it'),
        ('import no_such_package', '', 'no_such_package'),
        ('def get_config(:', '', 'config.py'),
    ],
)
def test_invalid_config_file_is_a_user_error(write, text, arg, message):
    with pytest.raises(UserError, match=message):
        config_lib.load(write(text) + arg)


@pytest.mark.parametrize('name', ['missing.py', 'missing.py:tiny'])
def test_missing_config_file_is_a_user_error(tmp_path, name):
    with pytest.raises(UserError, match='does not exist'):
        config_lib.load(str(tmp_path / name))


def test_missing_config_file_suggests_closest(tmp_path):
    (tmp_path / 'glue.py').touch()
    with pytest.raises(UserError, match=r"/gleu\.py' does not exist: did you mean 'glue\.py'\?"):
        config_lib.load(f'{tmp_path}/gleu.py:mrpc')


def test_folder_or_record_of_a_run_names_its_config(tmp_path):
    with pytest.raises(UserError, match=r'is a folder, not a config file\. Set --config to a file'):
        config_lib.load(str(tmp_path))
    (tmp_path / 'config.json').write_text('{}')
    (tmp_path / 'run.json').write_text('{}')
    with pytest.raises(UserError, match=rf'is a folder, .* Set --config={tmp_path}/config\.json'):
        config_lib.load(str(tmp_path))
    with pytest.raises(UserError, match=rf'is the record of a run, .* Set --config={tmp_path}/config\.json'):
        config_lib.load(f'{tmp_path}/run.json')


def test_config_file_that_is_not_python_is_rejected(tmp_path):
    (tmp_path / 'config.yaml').write_text('{}')
    with pytest.raises(UserError, match='not a Python file'):
        config_lib.load(str(tmp_path / 'config.yaml'))


def test_config_of_a_run_is_read(tmp_path):
    file = tmp_path / 'config.json'
    file.write_text('{"train": {"steps": 3, "phases": [[1, 2, 3]]}}')
    assert config_lib.load(str(file)).train.steps == 3
    for text in ('{"train"', '[1]'):
        file.write_text(text)
        with pytest.raises(
            UserError, match=r'config\.json. is not the config\.json of a run \(.*RUN/config\.json'
        ):
            config_lib.load(str(file))
