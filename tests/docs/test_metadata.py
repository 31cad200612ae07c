"""Files that describe the project agree with one another."""

import re
import tomllib

import yaml

import bert_jax
from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())


def names(requirements):
    return {re.split(r'[\[<>=!~; ]', r.strip())[0].lower().replace('_', '-') for r in requirements}


def test_the_citation_has_the_version_and_license_of_the_package():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert str(citation['version']) == bert_jax.__version__
    assert citation['license'] == PROJECT['project']['license']


def test_all_requirements_are_pinned():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    pinned = names(line for line in lines if '==' in line)
    extras = PROJECT['project']['optional-dependencies']
    required = names([*PROJECT['project']['dependencies'], *extras['test'], *extras['docs']])
    assert required <= pinned, f'not in requirements.txt: {", ".join(sorted(required - pinned))}'


def test_the_hooks_run_what_the_test_script_runs():
    [repository] = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    script = (ROOT / 'launch' / 'test.sh').read_text()
    assert len(repository['hooks']) == 4
    for hook in repository['hooks']:
        assert hook['entry'] in script
