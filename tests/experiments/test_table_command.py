"""The command that runs and prints a table."""

import csv
import json
import shutil

import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs, tables
from tests.experiments.made_tables import finish
from tests.runs import ROOT, TINY, jobs_in_process, run_in_process

CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.title, config.description = 'A table', 'Published: nowhere.'
    config.rows = (
        dict(name='GPT', config='{tiny}:pretrain', settings=(
            'task.name=clm', 'model.name=gpt', 'data.sources=("{{text}}",)', 'data.rows_dir={{workdir}}/rows',
            'train.steps=4', 'train.eval_every=0', 'checkpoint.every=1.0')),
    )
    config.columns = (
        dict(name='Class', config='{tiny}:classify', score='accuracy', format='percent', settings=(
            'data.source={source}', 'train.steps=4', 'train.eval_every=0', 'checkpoint.every=1.0')),
    )
    config.published = dict(GPT=dict(Class=90.0))
    config.text = '{corpus}'
    return config
"""


@pytest.fixture(scope='module')
def table_run(tmp_path_factory, corpus, labeled):
    """A table config, its working directory, and the outputs of --list and of the run."""
    folder = tmp_path_factory.mktemp('table')
    config = folder / 'config.py'
    config.write_text(CONFIG.format(tiny=TINY, source=labeled, corpus=corpus))
    flags = ('bert_jax.bin.table', f'--config={config}', f'--workdir={folder}/runs')
    before = run_in_process(*flags, '--list')
    with jobs_in_process():
        return config, folder / 'runs', before, run_in_process(*flags)


def test_table_runs_and_is_printed(table_run):
    _, workdir, before, done = table_run
    assert '2 of 2 runs are missing' in before.stdout
    assert '| GPT | 90 | not run |  |' in before.stdout
    assert done.returncode == 0, done.stderr
    assert '| GPT | 90 | ' in done.stdout
    assert 'not run' not in done.stdout
    assert {p.name for p in workdir.glob('table.*')} == {
        f'table.{kind}' for kind in ('md', 'csv', 'tex', 'html', 'json')
    }
    assert 'evaluation' in (workdir / 'class/gpt/seed0' / jobs.LOG).read_text()


def test_csv_has_one_number_in_each_column(table_run):
    _, workdir, *_ = table_run
    header, line = csv.reader((workdir / 'table.csv').open())
    assert header == ['row', 'column', 'score', 'mean', 'std', 'median', 'n', 'published']
    assert line == ['GPT', 'Class', 'accuracy', line[3], '', line[3], '1', '90.0']
    assert 0 <= float(line[3]) <= 100


def test_unfinished_table_resumes_in_a_moved_folder(table_run, tmp_path):
    config, workdir, *_ = table_run
    moved = tmp_path / 'moved'
    shutil.copytree(workdir, moved)
    for record in moved.rglob('done.json'):
        record.unlink()
    with jobs_in_process():
        done = run_in_process('bert_jax.bin.table', f'--config={config}', f'--workdir={moved}')
    assert done.returncode == 0, done.stderr
    assert 'earlier' not in done.stderr
    config = json.loads((moved / 'class/gpt/seed0/config.json').read_text())
    assert config['init']['checkpoint'] == str(moved / 'pretrain/gpt/seed0')


def test_finished_jobs_are_not_run_again(table_run, monkeypatch):
    config, workdir, *_ = table_run
    monkeypatch.setattr(jobs, '_start', lambda *_: pytest.fail('ran'))
    assert jobs.run(tables.read(str(config)).jobs(workdir), workdir) == {}
    more = tables.read(str(config), ['seeds=2']).jobs(workdir)
    assert [*jobs.find_unfinished(more)] == [job.folder for job in more[2:]]


def test_list_shows_what_has_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags = ('--config=configs/tables/bert_table1.py', f'--workdir={tmp_path}', '--config.checkpoint=x')
    job = tables.read('configs/tables/bert_table1.py', ['checkpoint=x']).jobs(tmp_path)[0]
    finish(job)
    done = run_in_process('bert_jax.bin.table', *flags, '--list')
    assert f'15 of 16 runs are missing\n{tmp_path}/qqp/pretrained/seed0\n' in done.stdout
    finish(job._replace(settings=(*job.settings, 'data.limit=500')))
    done = run_in_process('bert_jax.bin.table', *flags, '--list')
    assert f'16 of 16 runs are missing\n{job.folder}: data.limit was 500, is 10000\n' in done.stdout


@pytest.mark.parametrize(
    ('arg', 'name', 'runs'), [('', 'bert_table1', 16), (':paper', 'bert_table1_paper', 48)]
)
def test_default_workdir_is_named_after_the_config(monkeypatch, arg, name, runs):
    monkeypatch.chdir(ROOT)
    config = f'--config=configs/tables/bert_table1.py{arg}'
    done = run_in_process('bert_jax.bin.table', config, '--list', '--config.checkpoint=runs/none')
    assert done.returncode == 0, done.stderr
    assert f'{runs} of {runs} runs are missing' in done.stdout
    assert f'runs/{name}/mnli/random_weights/seed0' in done.stdout
    assert '84.6' in done.stdout


@pytest.mark.parametrize(
    ('change', 'problem'),
    [('row', 'has no rows'), ('seeds', 'table.seeds=0 must be at least 1')],
)
def test_invalid_table_config_is_an_error(tmp_path, corpus, labeled, change, problem):
    config = tmp_path / 'config.py'
    text = CONFIG.format(tiny=TINY, source=labeled, corpus=corpus)
    config.write_text(text.replace('config.rows = (', 'config.rows = () and (') if change == 'row' else text)
    with pytest.raises(UserError, match=problem):
        tables.read(str(config), ['seeds=0'] if change == 'seeds' else ['text=y'])
