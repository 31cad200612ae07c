"""Source files: signatures, installed distributions and the fingerprint of a corpus."""

import ast

import pytest

from bert_jax.data.pydocs import source


def test_signature_has_spans_of_types_and_defaults():
    code = 'async def f(a, /, b: int = 1, *args: str, c, d=(2, 3), **kw) -> list[int]: ...'
    signature = source.make_signature(ast.parse(code).body[0])
    text = signature.text
    assert text == 'def f(a, /, b: int = 1, *args: str, c, d=(2, 3), **kw) -> list[int]'
    assert {k: text[slice(*s)] for k, s in signature.types.items()} == {'b': 'int', 'args': 'str'}
    assert {k: text[slice(*s)] for k, s in signature.defaults.items()} == {'b': '1', 'd': '(2, 3)'}
    assert text[slice(*signature.returns)] == 'list[int]'


def test_installed_includes_requirements_and_skips_missing_distributions():
    installed = source.installed(['no-such-distribution', 'pytest'])
    assert {'pytest', 'pluggy'} <= set(installed)
    assert 'no-such-distribution' not in installed
    assert list(installed) == sorted(installed)


def test_fingerprint_depends_on_versions(monkeypatch):
    assert source.fingerprint() == source.fingerprint()
    assert len(source.fingerprint()) == 12
    uncached = source.fingerprint.__wrapped__
    before = uncached()
    monkeypatch.setattr(source.platform, 'python_version', lambda: '3.99.0')
    assert uncached() != before


def test_installed_corpus_is_parsed_once(tmp_path, monkeypatch):
    monkeypatch.setenv('BERT_JAX_CACHE', str(tmp_path))
    (tmp_path / 'kite.py').write_text('"""Fly a kite."""')
    monkeypatch.setattr(source, 'source_files', lambda: [('kite', tmp_path / 'kite.py')])
    (module,) = source.installed_corpus()
    assert [item.doc for item in module.items] == ['Fly a kite.']
    monkeypatch.setattr(source, 'source_files', lambda: pytest.fail('parsed again'))
    assert source.installed_corpus() == (module,)


def test_splits_have_their_shares_of_the_modules():
    splits = [source.Module(f'package.module{i}', (), ()).split for i in range(5000)]
    shares = {name: splits.count(name) / 5000 for name in ('train', 'validation', 'test')}
    assert shares == pytest.approx({'train': 0.9, 'validation': 0.05, 'test': 0.05}, abs=0.015)
