"""The generated reference is complete: every config key, command and flag is explained."""

import argparse

import pytest

from bert_jax.core import settings
from docs import commands, generate, offline


@pytest.fixture(scope='module')
def pages():
    return generate.pages()


@pytest.mark.parametrize('section', generate.sections(), ids=lambda s: f'{s.page}-{s.group or s.prefix}')
def test_every_config_key_is_explained(section):
    missing = [key.name for key in section.config_keys() if not key.meaning]
    assert not missing, (
        f'Attributes of {section.cls.__module__}.{section.cls.__qualname__} lacks {", ".join(missing)}'
    )


@pytest.mark.parametrize('section', generate.sections(), ids=lambda s: f'{s.page}-{s.group or s.prefix}')
def test_no_explained_key_is_unknown(section):
    unknown = {*settings.read_meanings(section.cls)} - {*dir(section.cls), *section.cls.__dataclass_fields__}
    assert not unknown, (
        f'Attributes of {section.cls.__qualname__} explains {", ".join(unknown)}, which do not exist'
    )


def test_every_key_is_in_the_reference(pages):
    text = '\n'.join(pages.values())
    for section in generate.sections():
        for key in section.config_keys():
            assert f'```{{key}} {key.name} | {section.group} |' in text


@pytest.mark.parametrize('name', commands.names())
def test_every_command_and_flag_is_in_the_reference(name, pages):
    assert f'`{name.removeprefix("bert_jax.")}`' in pages['commands/index.md']
    page = next(text for text in pages.values() if text.startswith(f'# {name.removeprefix("bert_jax.")}\n'))
    for action in commands.capture(name, None).parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        option = (action.option_strings or [action.dest])[0]
        assert action.help, f'{name} {option} has no help text'
        assert f'```{{option}} {action.option_strings[0] if action.option_strings else ""}' in page


def test_every_package_is_in_the_reference(pages):
    for module in ('bert_jax', 'bert_jax.modeling.bert', 'bert_jax.train.loop', 'bert_jax.optim'):
        assert any(f'.. automodule:: {module}\n' in text for text in pages.values())


def test_pages_that_fetch_from_elsewhere_are_found(tmp_path):
    (tmp_path / 'a.html').write_text(
        '<a href="https://x.org">fine</a><script src="https://x.org/a.js"></script>'
    )
    (tmp_path / 'b.css').write_text('@import "https://x.org/a.css"; a { background: url(//x.org/a.png) }')
    assert len(offline.fetched(tmp_path)) == 3
