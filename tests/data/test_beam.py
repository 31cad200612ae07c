"""Rows by Apache Beam are those of the local processes."""

import importlib.util
import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import beam, prepare
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import Rows, SegmentRows

INSTALLED = importlib.util.find_spec('apache_beam') is not None
RUNNERS = {
    'direct': '--runner=DirectRunner',
    'portable': '--runner=FnApiRunner',
    'dask': '--runner=apache_beam.runners.dask.dask_runner.DaskRunner',
}


@pytest.mark.parametrize('name', RUNNERS)
def test_rows_are_those_of_local_processes(tmp_path, corpus, tokenizer, name):
    if not INSTALLED or (name == 'dask' and not importlib.util.find_spec('dask')):
        pytest.skip('needs: pip install apache-beam dask distributed')
    text = TextConfig(sources=(str(corpus),), shard_chars=2000, workers=1, validation_fraction=0.2)
    maker = SegmentRows(32, 'random', 0.5, 0.1)
    here = prepare.prepare(text, maker, tokenizer, tmp_path / 'here')
    there = prepare.prepare(text, maker, tokenizer, tmp_path / 'there', beam.runner(RUNNERS[name]))
    assert json.dumps(here) == json.dumps(there)
    assert len(here['files']['train']) > 3
    for split in ('train', 'validation'):
        a, b = (Rows(tmp_path / place, split) for place in ('here', 'there'))
        assert len(a) == len(b) > 0
        assert all((a[i] == b[i]).all() for i in range(len(a)))
    assert not list((tmp_path / 'there').rglob('bert_jax-*'))


def test_the_staging_folder_goes_whatever_happens(tmp_path, corpus, tokenizer):
    if not INSTALLED:
        pytest.skip('needs: pip install apache-beam')
    text = TextConfig(sources=(str(corpus),), shard_chars=2000, workers=1, validation_fraction=0.2)
    run = beam.runner(RUNNERS['direct'], str(tmp_path / 'staging'))

    def broken(work, *rest):
        return run(str, *rest)  # which takes no folder

    with pytest.raises(Exception, match='folder'):
        prepare.prepare(text, SegmentRows(32, 'random', 0.5, 0.1), tokenizer, tmp_path / 'rows', broken)
    assert not [*(tmp_path / 'staging').iterdir()]


@pytest.mark.parametrize(
    ('options', 'said'),
    [('--runner=Nope', 'Unexpected pipeline runner: Nope'), ('--runner=a.b', "No module named 'a'")],
)
def test_options_that_beam_does_not_take_are_one_sentence(options, said):
    if not INSTALLED:
        pytest.skip('needs: pip install apache-beam')
    with pytest.raises(UserError, match=f'does not take --beam=.*{said}'):
        beam.runner(options)


def test_an_open_quotation_is_said_with_or_without_beam():
    with pytest.raises(UserError, match='--beam=.* mend its quotes'):
        beam.runner("--runner='x")


def test_without_beam_it_is_said_how_to_get_it():
    if INSTALLED:
        pytest.skip('apache-beam is installed')
    with pytest.raises(UserError, match='pip install apache-beam'):
        beam.runner('')
