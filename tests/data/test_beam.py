"""Apache Beam prepares the same rows as local processes."""

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
def test_beam_prepares_the_same_rows_as_local_processes(tmp_path, corpus, tokenizer, name):
    if not INSTALLED or (name == 'dask' and not importlib.util.find_spec('dask')):
        pytest.skip('needs: pip install apache-beam dask distributed')
    text = TextConfig(sources=(str(corpus),), shard_chars=2000, workers=1, validation_fraction=0.2)
    maker = SegmentRows(32, 'random', 0.5, 0.1)
    local = prepare.prepare(text, maker, tokenizer, tmp_path / 'local')
    remote = prepare.prepare(text, maker, tokenizer, tmp_path / 'remote', beam.make_runner(RUNNERS[name]))
    assert json.dumps(local) == json.dumps(remote)
    assert len(local['files']['train']) > 3
    for split in ('train', 'validation'):
        a, b = (Rows(tmp_path / name, split) for name in ('local', 'remote'))
        assert len(a) == len(b) > 0
        assert all((a[i] == b[i]).all() for i in range(len(a)))
    assert not list((tmp_path / 'remote').rglob('bert_jax-*'))


def test_staging_folder_is_deleted_after_an_error(tmp_path, corpus, tokenizer):
    if not INSTALLED:
        pytest.skip('needs: pip install apache-beam')
    text = TextConfig(sources=(str(corpus),), shard_chars=2000, workers=1, validation_fraction=0.2)
    run_shards = beam.make_runner(RUNNERS['direct'], str(tmp_path / 'staging'))

    def fail(work, *rest):
        return run_shards(str, *rest)  # `str` accepts no argument `folder`

    with pytest.raises(Exception, match='folder'):
        prepare.prepare(text, SegmentRows(32, 'random', 0.5, 0.1), tokenizer, tmp_path / 'rows', fail)
    assert not [*(tmp_path / 'staging').iterdir()]


@pytest.mark.parametrize(
    ('options', 'message'),
    [('--runner=Nope', 'Unexpected pipeline runner: Nope'), ('--runner=a.b', "No module named 'a'")],
)
def test_options_that_beam_rejects_are_a_user_error(options, message):
    if not INSTALLED:
        pytest.skip('needs: pip install apache-beam')
    with pytest.raises(UserError, match=f'rejects --beam=.*{message}'):
        beam.make_runner(options)


def test_unbalanced_quotes_are_an_error_with_or_without_beam():
    with pytest.raises(UserError, match='--beam=.* Fix its quotes'):
        beam.make_runner("--runner='x")


def test_missing_beam_says_how_to_install_it():
    if INSTALLED:
        pytest.skip('apache-beam is installed')
    with pytest.raises(UserError, match='pip install apache-beam'):
        beam.make_runner('')
