"""Tables: their jobs and the order of them, our scores next to the published ones, tests of differences, failures."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs, tables
from bert_jax.experiments.tables import Column, Row, Table
from bert_jax.reports import export, figures
from bert_jax.train import experiment
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


PRETRAIN, CLASSIFY = f'{TINY}:pretrain', f'{TINY}:classify'


def make_table(**changes):
    rows = (
        Row('one way', PRETRAIN, ('data.length=16',)),
        Row('No way', PRETRAIN, skipped_columns={'Loss': 'cannot'}, weights='random'),
    )
    columns = (
        Column('Share', CLASSIFY, 'accuracy', format='percent'),
        Column('Loss', CLASSIFY, 'loss', format='exp'),
    )
    defaults = dict(title='T', description='', rows=rows, columns=columns, seeds=2)
    return Table(**{**defaults, **changes})


def write_run(table, workdir, name, *curve, **scores):
    """Write a finished run of a table, with its final scores, or with the accuracy of each evaluation."""
    folder = workdir / name
    folder.mkdir(parents=True)
    sections = {name: {} for name in ('data', 'model', 'train', 'init', 'checkpoint')}
    (folder / 'config.json').write_text(json.dumps(sections))
    lines = [{'step': i, 'eval/accuracy': v} for i, v in enumerate(curve, 1)]
    lines = lines or [{'step': 9} | {f'eval/{k}': v for k, v in scores.items()}]
    text = ''.join(json.dumps({'eval/loss': 1.0} | line) + '\n' for line in lines)
    (folder / 'metrics.jsonl').write_text(text)
    finish(next(job for job in table.jobs(workdir) if job.folder == folder))


def finish(job):
    """Write the records of a job that has run."""
    job.mark_started()
    job.mark_finished()


def test_each_seed_pretrains_before_its_columns(tmp_path):
    found = make_table().jobs(tmp_path)
    names = [str(job.folder.relative_to(tmp_path)) for job in found]
    first = ['pretrain/one_way/seed0', 'share/one_way/seed0', 'loss/one_way/seed0', 'pretrain/no_way/seed0', 'share/no_way/seed0']  # fmt: skip
    assert names == [*first, *(name.replace('seed0', 'seed1') for name in first)]
    assert found[0].depends_on is None
    assert all(
        job.depends_on == tmp_path / 'pretrain' / job.folder.parent.name / job.folder.name
        for job in found
        if job.depends_on
    )
    assert found[0].settings == ('data.length=16', 'train.seed=0')
    assert f'init.checkpoint={tmp_path}/pretrain/one_way/seed0' in found[1].settings
    assert 'init.weights=pretrained' in found[1].settings
    assert 'init.weights=random' in found[4].settings


def test_scores_are_next_to_the_published_ones(tmp_path):
    published = {'one way': {'Share': 80.0}}
    table = make_table(published=published)
    write_run(table, tmp_path, 'share/one_way/seed0', accuracy=0.5)
    write_run(table, tmp_path, 'share/one_way/seed1', accuracy=0.6)
    write_run(table, tmp_path, 'loss/one_way/seed0')
    failures = {tmp_path / 'share/no_way/seed1': 'no data'}
    head, one, other = table.lines(tmp_path, failures)
    assert head == ['', 'Share: published', 'ours', 'difference', 'Loss']
    assert one == ['one way', '80', '55.0 ± 7.1 (2)', '-25.0', '2.72 (1)']
    assert other == ['No way', '', 'failed [1]', '', 'cannot']
    assert export.to_markdown([head, one]).splitlines()[1] == '|---' * 5 + '|'
    assert export.to_csv([one]) == 'one way,80,55.0 ± 7.1 (2),-25.0,2.72 (1)\n'
    assert r'55.0 $\pm$ 7.1 (2)' in export.to_latex([head, one])
    assert export.to_latex([['', 'x'], ['[MASK]', '*']]).splitlines()[4] == r'{}[MASK] & * \\'
    assert export.to_markdown([['', 'x'], ['a\nb', '|']]).splitlines()[2] == r'| a b | \| |'
    assert dataclasses.replace(table, transposed=True).lines(tmp_path, failures) == [
        ['', 'one way: published', 'ours', 'difference', 'No way'],
        ['Share', '80', '55.0 ± 7.1 (2)', '-25.0', 'failed [1]'],
        ['Loss', '', '2.72 (1)', '', 'cannot'],
    ]


def test_runs_with_other_settings_do_not_count(tmp_path):
    write_run(make_table(), tmp_path, 'share/one_way/seed0', accuracy=0.5)
    other = (Column('Share', CLASSIFY, 'accuracy', ('train.steps=9',), format='percent'),)
    assert make_table().values(tmp_path)['one way', 'Share'] == [50.0]
    rows = (Row('one way', PRETRAIN, ('data.length=16',)),)
    assert make_table(rows=rows, columns=other).values(tmp_path)['one way', 'Share'] == []


@pytest.mark.parametrize(
    ('published', 'problem'),
    [
        ({'one': {}}, "no row or column 'one': did you mean 'one way'"),
        ({'one way': {'Shares': 1.0}}, "did you mean 'Share'"),
        ({'one way': {'Share': 'x'}}, 'is not a number'),
    ],
)
def test_published_scores_must_match_rows_and_columns(published, problem):
    with pytest.raises(UserError, match=problem):
        make_table(published=published)


def test_rank_correlation_with_the_published_scores(tmp_path):
    rows = tuple(Row(f'r{i}', PRETRAIN) for i in range(4))
    published = {f'r{i}': {'Share': 10.0 * i} for i in range(4)}
    table = make_table(rows=rows, published=published)
    for i, accuracy in enumerate((0.1, 0.3, 0.2, 0.4)):
        write_run(table, tmp_path, f'share/r{i}/seed0', accuracy=accuracy)
    (line,) = table.rank_correlations(tmp_path)
    assert line == 'Share: rank correlation with the published scores +0.80 (4 rows)'


def table_of_one_checkpoint(**changes):
    rows = (Row('pretrained'), Row('random', weights='random'))
    columns = (
        Column('Share', CLASSIFY, format='percent'),
        Column('Updates', source_column='Share', until_score_of='random'),
    )
    return make_table(rows=rows, columns=columns, checkpoint='runs/x', baseline='random', **changes)


def test_rows_can_start_from_one_checkpoint(tmp_path):
    found = table_of_one_checkpoint(seeds=1).jobs(tmp_path)
    assert [str(job.folder.relative_to(tmp_path)) for job in found] == [
        'share/pretrained/seed0',
        'share/random/seed0',
    ]
    assert [job.settings[1:] for job in found] == [
        ('init.checkpoint=runs/x', 'init.weights=pretrained'),
        ('init.checkpoint=runs/x', 'init.weights=random'),
    ]
    assert all(job.depends_on is None for job in found)


def test_column_can_evaluate_the_runs_of_another(tmp_path):
    columns = (
        Column('en', 'en.py'),
        Column('de', f'{TINY}:classify', settings=('data.source=de.csv',), source_column='en'),
    )
    rows = (Row('own', checkpoint='{own}'), Row('other', skipped_columns={'en': 'no'}))
    table = make_table(
        rows=rows, columns=columns, checkpoint='runs/x', checkpoints={'own': 'runs/own'}, seeds=1
    )
    training, evaluation = table.jobs(tmp_path)
    assert training.settings == ('train.seed=0', 'init.checkpoint=runs/own', 'init.weights=pretrained')
    folder = tmp_path / 'en/own/seed0'
    assert (evaluation.depends_on, evaluation.checkpoint) == (folder, str(folder))
    assert evaluation.arguments == [
        'bert_jax.bin.eval_classify', f'--checkpoint={folder}', f'--out={tmp_path}/de/own/seed0/scores.json',
        f'--config={TINY}:classify', '--config.data.source=de.csv',
    ]  # fmt: skip
    evaluation.folder.mkdir(parents=True)
    scored = {'source': 'de.csv', 'split': 'test', 'scores': {'accuracy': 0.25}}
    (evaluation.folder / 'scores.json').write_text(json.dumps(scored))
    finish(evaluation)
    assert table.values(tmp_path)['own', 'de'] == [0.25]


def test_column_can_score_or_study_the_pretraining(tmp_path):
    columns = (
        Column('Loss', score='loss', source_column='pretraining'),
        Column('Words', 'bin/study_language.py', 'word_alignment', ('limit=50',)),
    )
    table = make_table(rows=(Row('r', PRETRAIN), Row('own', checkpoint='runs/own')), columns=columns, seeds=1)
    pretraining, study, other = table.jobs(tmp_path)
    assert pretraining.folder == tmp_path / 'pretrain/r/seed0'
    assert (study.depends_on, other.depends_on) == (pretraining.folder, None)
    assert study.arguments == ['bert_jax.bin.study_language', f'--checkpoint={pretraining.folder}', f'--out={study.folder}', '--limit=50']  # fmt: skip
    assert other.checkpoint == 'runs/own'
    write_run(table, tmp_path, 'pretrain/r/seed0', loss=2.0)
    assert table.values(tmp_path)['r', 'Loss'] == [2.0]


def test_column_can_study_the_runs_of_another(tmp_path):
    columns = (
        Column('tags', 'pos.py'),
        Column(
            'moved',
            'bin/study_mean_removal.py',
            'mean_removed',
            ('source_config=en.py', 'target_config=de.py'),
            source_column='tags',
        ),
    )
    training, study = make_table(rows=(Row('own', checkpoint='x'),), columns=columns, seeds=1).jobs(tmp_path)
    assert (study.depends_on, study.checkpoint) == (training.folder, str(training.folder))
    assert study.arguments[0] == 'bert_jax.bin.study_mean_removal'
    assert study.arguments[-2:] == ['--source_config=en.py', '--target_config=de.py']


def test_figure_with_amounts_on_the_x_axis(tmp_path):
    columns = [Column(f'{n}', CLASSIFY, format='percent', panel='SST-2', x=n) for n in (100, 500)]
    rows = (Row('a', checkpoint='x'), Row('b', checkpoint='y'))
    table = make_table(rows=rows, columns=tuple(columns), x_label='labels')
    assert figures.plot_table(table, tmp_path) is None
    for folder, accuracy in (
        ('100/a/seed0', 0.5),
        ('100/a/seed1', 0.7),
        ('500/a/seed0', 0.8),
        ('100/b/seed0', 0.4),
    ):
        write_run(table, tmp_path, folder, accuracy=accuracy)
    (axes,) = figures.plot_table(table, tmp_path).axes
    assert axes.get_title() == 'SST-2 (n = 2)'
    drawn = {c.get_label(): c.lines[0].get_xydata().round(3).tolist() for c in axes.containers}
    assert drawn == {'a': [[100, 60], [500, 80]], 'b': [[100, 40]]}
    rows = tuple(Row(f'{n}', checkpoint='x', x=n) for n in (1, 2))
    table = make_table(rows=rows, columns=(Column('Words', CLASSIFY),), x_label='MB', seeds=1)
    for row, accuracy in (('1', 0.1), ('2', 0.3)):
        write_run(table, tmp_path, f'words/{row}/seed0', accuracy=accuracy)
    (axes,) = figures.plot_table(table, tmp_path).axes
    assert axes.get_title() == 'Words (n = 1)'
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.3]]


def test_figure_with_names_on_the_x_axis(tmp_path):
    columns = [Column(f'NLI {k}', CLASSIFY, panel='NLI', x=k) for k in ('en', 'de')]
    rows = (Row('a', checkpoint='x'), Row('b', checkpoint='y'))
    published = {'a': {'NLI de': 0.7, 'NLI en': 0.8}}
    table = make_table(rows=rows, columns=tuple(columns), published=published, x_label='language', seeds=1)
    for folder, accuracy in (('nli_en/a/seed0', 0.5), ('nli_de/a/seed0', 0.4), ('nli_de/b/seed0', 0.3)):
        write_run(table, tmp_path, folder, accuracy=accuracy)
    (axes,) = figures.plot_table(table, tmp_path).axes
    assert [x.get_text() for x in axes.get_xticklabels()] == ['en', 'de']
    drawn = {c.get_label(): c.lines[0].get_xydata().round(1).tolist() for c in axes.containers}
    assert drawn == {
        'a': [[-0.2, 0.5], [0.8, 0.4]],
        'a, published': [[0, 0.8], [1, 0.7]],
        'b': [[1.2, 0.3]],
    }


def test_step_at_which_a_row_reaches_the_score_of_another(tmp_path):
    table = table_of_one_checkpoint()
    write_run(table, tmp_path, 'share/random/seed0', 0.5, 0.6, 0.8, 0.7)
    write_run(table, tmp_path, 'share/random/seed1', 0.5, 0.6, 0.6, 0.6)  # the best are 0.8 and 0.6: 0.7
    write_run(table, tmp_path, 'share/pretrained/seed0', 0.6, 0.7, 0.9, 0.9)
    write_run(table, tmp_path, 'share/pretrained/seed1', 0.6, 0.6, 0.6, 0.69)
    values = table.values(tmp_path)
    assert values['pretrained', 'Updates'] == [2.0, np.inf]
    assert values['random', 'Updates'] == [3.0, np.inf]
    assert values['pretrained', 'Share'] == pytest.approx([90, 69])
    share, updates, together = table.differences(tmp_path)
    assert together.endswith('after correction for 2 tests (Holm): none')
    assert tables._holm({'a': 0.03, 'b': 0.01, 'c': 0.02, 'd': 0.2}) == ['b']
    assert tables._holm({'a': 0.04, 'b': 0.01}) == ['b', 'a'], 'the second test has the whole level'
    p = stats.ttest_ind([90, 69], [70, 60], equal_var=False).pvalue
    assert share == f"Share: pretrained 79.5 ± 14.8 (2), random 65.0 ± 7.1 (2), p = {p:.2g} (Welch's t-test)"
    # Never is later than all steps. No two of the ranks 1, 2, 3.5 and 3.5 are less extreme than 1 and 3.5: p = 1.
    assert updates == 'Updates: pretrained 2 (1 of 2), random 3 (1 of 2), p = 1 (Mann-Whitney U test)'


def test_mann_whitney_test_is_exact_with_ties():
    # 2 of the 20 ways to choose 3 of 6 values, and 2 of 252 to choose 5 of 10, separate equal steps from infinite ones.
    assert tables._mann_whitney([100] * 3, [np.inf] * 3) == pytest.approx(2 / 20)
    assert tables._mann_whitney([100, 100, 200, 200, 300], [np.inf] * 5) == pytest.approx(2 / 252)


def test_study_of_a_fixed_checkpoint_runs_once(tmp_path):
    columns = (
        Column('Words', 'bin/study_language.py', 'word_alignment'),
        Column('Lines', score='line_alignment', source_column='Words'),
        Column('Share', CLASSIFY),
    )
    table = make_table(rows=(Row('fixed', checkpoint='x'), Row('own', PRETRAIN)), columns=columns, seeds=3)
    folders = [str(job.folder.relative_to(tmp_path)) for job in table.jobs(tmp_path)]
    counts = {
        name: sum(f.startswith(f'{name}/') for f in folders)
        for name in ('words/fixed', 'words/own', 'share/fixed')
    }
    assert counts == {'words/fixed': 1, 'words/own': 3, 'share/fixed': 3}
    study = next(job for job in table.jobs(tmp_path) if job.is_study)
    study.folder.mkdir(parents=True)
    scores = {'source': 'x', 'split': 'test', 'scores': {'word_alignment': 0.5, 'line_alignment': 0.25}}
    (study.folder / 'study.json').write_text(json.dumps(scores))
    finish(study)
    values = table.values(tmp_path)
    assert (values['fixed', 'Words'], values['fixed', 'Lines']) == ([0.5], [0.25])


def test_first_step_as_good_as_a_target():
    curve = {2: 0.9, 4: 0.5, 6: 0.7}
    assert tables._first_step(curve, 0.6, lower_is_better=True) == 4
    assert tables._first_step(curve, 0.6, lower_is_better=False) == 2
    assert tables._first_step(curve, 0.1, lower_is_better=True) == np.inf
    assert tables._first_step(curve, np.nan, lower_is_better=True) == np.inf


def test_updates_until_a_loss_is_reached(tmp_path):
    rows = (Row('pretrained'), Row('random', weights='random'))
    columns = (
        Column('Share', CLASSIFY, score='loss'),
        Column('Updates', score='loss', source_column='Share', until_score_of='random'),
    )
    table = make_table(rows=rows, columns=columns, checkpoint='runs/x', seeds=1)
    for name, losses in (('pretrained', (0.9, 0.2)), ('random', (0.8, 0.4))):
        write_run(table, tmp_path, f'share/{name}/seed0')
        lines = [{'step': step, 'eval/loss': loss} for step, loss in enumerate(losses, 1)]
        (tmp_path / f'share/{name}/seed0/metrics.jsonl').write_text(
            ''.join(json.dumps(line) + '\n' for line in lines)
        )
    assert table.values(tmp_path)['random', 'Updates'] == [2]
    assert table.values(tmp_path)['pretrained', 'Updates'] == [2]


def test_format_of_cells():
    assert Column('x', format='percent').cell([0.69499, 0.69531]) == '0.7 ± 0.0 (2)'
    assert Column('x').cell([0.69499, 0.69531]) == '0.6951 ± 0.0002 (2)'
    assert Column('x', until_score_of='y').cell([5, np.inf, 3]) == '5 (2 of 3)'
    assert Column('x', until_score_of='y').cell([5, np.inf, np.inf]) == 'never (1 of 3)'


def test_unknown_score_affects_only_its_cell(tmp_path, caplog):
    table = make_table()
    write_run(table, tmp_path, 'share/one_way/seed0', f1=0.5)
    _, one, _ = table.lines(tmp_path, {})
    assert one[1] == "no score 'accuracy'"
    assert 'Known scores: ' in caplog.text


def test_cells_must_have_different_folders(tmp_path):
    rows = (Row('a b', config='x.py'), Row('c', config='x.py'))
    for columns in ((Column('pretrain', 'y.py'),), (Column('u v', 'y.py'), Column('u-v', 'y.py'))):
        with pytest.raises(UserError, match='have the same folder'):
            make_table(rows=rows, columns=columns).jobs(tmp_path)
    assert tables.folder_name('..') not in ('', '..')
    assert tables.folder_name('α') != tables.folder_name('β')


def test_runs_without_variance_are_not_tested(tmp_path):
    table = table_of_one_checkpoint()
    for row in ('random', 'pretrained'):
        for seed in (0, 1):
            write_run(table, tmp_path, f'share/{row}/seed{seed}', 0.5)
    assert table.differences(tmp_path)[0].endswith('no variance, not tested')


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'checkpoint': ''}, 'Pass --config.checkpoint=DIR'),
        (
            {'rows': (Row('random', checkpoint='{german}'),), 'columns': ()},
            'refers to an unknown checkpoint {german}',
        ),
        ({'baseline': 'rando'}, "did you mean 'random'"),
        ({'columns': (Column('Share'),)}, 'needs config or source_column'),
        ({'columns': (Column('Share', until_score_of='random'),)}, 'needs config or source_column'),
        ({'columns': (Column('Share', CLASSIFY, until_score_of='random'),)}, 'but no source_column'),
        ({'columns': (Column('Updates', source_column='Share'),)}, "no row or column 'Share'"),
        (
            {'columns': (Column('Words', 'bin/x.py'), Column('de', 'de.py', source_column='Words'))},
            "no row or column 'Words'",
        ),
        (
            {'columns': (Column('de', 'de.py', source_column='pretraining'),)},
            'has both source_column=.* and a config',
        ),
    ],
)
def test_inconsistent_table_is_an_error(changes, problem):
    with pytest.raises(UserError, match=problem):
        dataclasses.replace(table_of_one_checkpoint(), **changes)


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


def test_finished_jobs_are_not_run_again(table_run, monkeypatch):
    config, workdir, *_ = table_run
    monkeypatch.setattr(jobs, '_start', lambda *_: pytest.fail('ran'))
    assert jobs.run(tables.read(str(config)).jobs(workdir), workdir) == {}
    more = tables.read(str(config), ['seeds=2']).jobs(workdir)
    assert [*jobs.find_unfinished(more)] == [job.folder for job in more[2:]]


TABLES = [
    p.name for p in sorted((ROOT / 'configs' / 'tables').glob('*.py')) if 'def get_config(' in p.read_text()
]
WITH_SIZES = [name for name in TABLES if name != 'uses.py']


@pytest.mark.parametrize(
    'spec',
    ['uses.py', 'dna.py:small', *(f'{name}:{size}' for name in WITH_SIZES for size in ('mini', 'paper'))],
)
def test_all_jobs_of_a_table_have_valid_settings(spec, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = tables.read(f'configs/tables/{spec}', ['seeds=1', 'checkpoint=runs/english']).jobs(
        pathlib.Path('runs')
    )
    name = spec.partition(':')[0]
    assert len(found) >= {'bert_table2.py': 4, 'bert_table7.py': 7, 'dna.py': 6}.get(name, 11)
    for job in found:
        if not job.is_study:
            experiment.read(job.config, job.settings)


def test_uses_have_nine_tasks_two_evaluations_and_a_test(monkeypatch):
    monkeypatch.chdir(ROOT)
    uses = tables.read('configs/tables/uses.py', ['checkpoint=runs/english'])
    jobs_by_folder = {str(job.folder): job for job in uses.jobs(pathlib.Path('runs/uses'))}
    assert len(jobs_by_folder) == (9 + 2) * 2 * 3
    assert uses.baseline == 'random weights'
    cola = jobs_by_folder['runs/uses/cola/pretrained/seed2']
    assert cola.settings == (
        'optim.learning_rate=3e-4',
        'train.log_every=1',
        'train.eval_every=0',
        'checkpoint.every=1.0',
        'train.seed=2',
        'init.checkpoint=runs/english',
        'init.weights=pretrained',
    )
    squad = jobs_by_folder['runs/uses/squad/random_weights/seed0']
    assert {'data.limit=3000', 'train.eval_rows=4000', 'init.weights=random'} <= {*squad.settings}
    evaluation = jobs_by_folder['runs/uses/nli_xnli_test/pretrained/seed1']
    assert evaluation.config == 'configs/finetune/xnli.py:en'
    assert evaluation.checkpoint == 'runs/uses/nli/pretrained/seed1'


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


def test_scores_that_are_not_finite_are_not_tested(tmp_path):
    table = table_of_one_checkpoint()
    write_run(table, tmp_path, 'share/random/seed0', 0.5, None, 0.8)
    write_run(table, tmp_path, 'share/random/seed1', None, 0.6, 0.4)
    for seed, accuracy in enumerate((0.7, 0.9)):
        write_run(table, tmp_path, f'share/pretrained/seed{seed}', accuracy, None)
    share, updates = table.differences(tmp_path)
    assert (
        share == 'Share: pretrained nan ± nan (2), random 60.0 ± 28.3 (2), a score is not finite, not tested'
    )
    assert updates.startswith('Updates: pretrained 1 (2 of 2), random 3 (1 of 2), p = '), (
        'the best are 0.8 and 0.6'
    )
    assert table.json_values(tmp_path)['pretrained']['Share'] == [None, None]


def test_rank_correlation_leaves_out_rows_without_a_finite_score(tmp_path):
    rows = tuple(Row(f'r{i}', PRETRAIN) for i in range(4))
    table = make_table(rows=rows, published={f'r{i}': {'Share': 10.0 * i} for i in range(4)})
    for i, accuracy in enumerate((0.1, 0.3, None, 0.4)):
        write_run(table, tmp_path, f'share/r{i}/seed0', accuracy=accuracy)
    (line,) = table.rank_correlations(tmp_path)
    assert line == 'Share: rank correlation with the published scores +1.00 (3 rows)'


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
