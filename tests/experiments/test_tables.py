"""A paper's table: the runs it needs, each once and in order; its numbers beside the published ones; what fails."""

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy import stats

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs, tables
from bert_jax.experiments.jobs import Job
from bert_jax.experiments.tables import Column, Row, Table
from bert_jax.reports import export, figures
from bert_jax.train import experiment
from tests.runs import ROOT, TINY, run_here

CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.title, config.about = 'A table', 'Published: nowhere.'
    config.rows = (
        dict(name='GPT', config='{tiny}:pretrain', settings=(
            'task.name=clm', 'model.name=gpt', 'data.sources=("{{text}}",)', 'data.rows={{workdir}}/rows',
            'train.steps=4', 'train.eval_every=0', 'checkpoint.every=1.0')),
    )
    config.columns = (
        dict(name='Class', config='{tiny}:classify', score='accuracy', shown='percent', settings=(
            'data.source={source}', 'train.steps=4', 'train.eval_every=0', 'checkpoint.every=1.0')),
    )
    config.published = dict(GPT=dict(Class=90.0))
    config.text = '{corpus}'
    return config
"""


def table(**changes):
    rows = (
        Row('one way', 'one.py', ('a=1',)),
        Row('No way', 'two.py', skip={'Loss': 'cannot'}, weights='random'),
    )
    columns = (
        Column('Share', 'c.py', 'accuracy', shown='percent'),
        Column('Loss', 'd.py', 'loss', shown='exp'),
    )
    given = dict(title='T', about='', rows=rows, columns=columns, seeds=2)
    return Table(**{**given, **changes})


def pretend(of, workdir, name, *curve, **scores):
    """A working directory with the scores of a finished run of a table: at its end, or the accuracy of each step."""
    place = workdir / name
    place.mkdir(parents=True)
    sections = {name: {} for name in ('data', 'model', 'train', 'init', 'checkpoint')}
    (place / 'config.json').write_text(json.dumps(sections))
    lines = [{'step': i, 'eval/accuracy': v} for i, v in enumerate(curve, 1)]
    lines = lines or [{'step': 9} | {f'eval/{k}': v for k, v in scores.items()}]
    text = ''.join(json.dumps({'eval/loss': 1.0} | line) + '\n' for line in lines)
    (place / 'metrics.jsonl').write_text(text)
    next(job for job in of.jobs(workdir) if job.place == place).finish()


def test_each_seed_is_pretrained_and_then_every_column_starts_from_it(tmp_path):
    found = table().jobs(tmp_path)
    names = [str(job.place.relative_to(tmp_path)) for job in found]
    first = ['pretrain/one_way/seed0', 'share/one_way/seed0', 'loss/one_way/seed0', 'pretrain/no_way/seed0', 'share/no_way/seed0']  # fmt: skip
    assert names == [*first, *(name.replace('seed0', 'seed1') for name in first)]
    assert found[0].after is None
    assert all(
        job.after == tmp_path / 'pretrain' / job.place.parent.name / job.place.name
        for job in found
        if job.after
    )
    assert found[0].settings == ('a=1', 'train.seed=0')
    assert f'init.checkpoint={tmp_path}/pretrain/one_way/seed0' in found[1].settings
    assert 'init.weights=pretrained' in found[1].settings
    assert 'init.weights=random' in found[4].settings


def test_numbers_stand_beside_the_published_ones(tmp_path):
    published = {'one way': {'Share': 80.0}}
    made = table(published=published)
    pretend(made, tmp_path, 'share/one_way/seed0', accuracy=0.5)
    pretend(made, tmp_path, 'share/one_way/seed1', accuracy=0.6)
    pretend(made, tmp_path, 'loss/one_way/seed0')
    failed = {tmp_path / 'share/no_way/seed1': 'no data'}
    head, one, other = made.lines(tmp_path, failed)
    assert head == ['', 'Share: published', 'own', 'difference', 'Loss']
    assert one == ['one way', '80', '55.0 ± 7.1 (2)', '-25.0', '2.72 (1)']
    assert other == ['No way', '', 'failed [1]', '', 'cannot']
    assert export.markdown([head, one]).splitlines()[1] == '|---' * 5 + '|'
    assert export.comma_separated([one]) == 'one way,80,55.0 ± 7.1 (2),-25.0,2.72 (1)\n'
    assert r'55.0 $\pm$ 7.1 (2)' in export.latex([head, one])
    assert export.latex([['', 'x'], ['[MASK]', '*']]).splitlines()[4] == r'{}[MASK] & * \\'
    assert export.markdown([['', 'x'], ['a\nb', '|']]).splitlines()[2] == r'| a b | \| |'
    assert dataclasses.replace(made, turned=True).lines(tmp_path, failed) == [
        ['', 'one way: published', 'own', 'difference', 'No way'],
        ['Share', '80', '55.0 ± 7.1 (2)', '-25.0', 'failed [1]'],
        ['Loss', '', '2.72 (1)', '', 'cannot'],
    ]


def test_numbers_of_other_settings_do_not_count(tmp_path):
    pretend(table(), tmp_path, 'share/one_way/seed0', accuracy=0.5)
    other = (Column('Share', 'c.py', 'accuracy', ('train.steps=9',), shown='percent'),)
    assert table().numbers(tmp_path)['one way', 'Share'] == [50.0]
    rows = (Row('one way', 'one.py', ('a=1',)),)
    assert table(rows=rows, columns=other).numbers(tmp_path)['one way', 'Share'] == []


@pytest.mark.parametrize(
    ('published', 'problem'),
    [
        ({'one': {}}, "no 'one': did you mean 'one way'"),
        ({'one way': {'Shares': 1.0}}, "did you mean 'Share'"),
        ({'one way': {'Share': 'x'}}, 'is no number'),
    ],
)
def test_what_was_published_must_have_a_place(published, problem):
    with pytest.raises(UserError, match=problem):
        table(published=published)


def test_the_published_order_is_compared(tmp_path):
    rows = tuple(Row(f'r{i}', 'one.py') for i in range(4))
    published = {f'r{i}': {'Share': 10.0 * i} for i in range(4)}
    made = table(rows=rows, published=published)
    for i, accuracy in enumerate((0.1, 0.3, 0.2, 0.4)):
        pretend(made, tmp_path, f'share/r{i}/seed0', accuracy=accuracy)
    (line,) = made.orders(tmp_path)
    assert line == 'Share: rank correlation with the published order +0.80 (4 rows)'


def of_one_checkpoint(**changes):
    rows = (Row('pretrained'), Row('random', weights='random'))
    columns = (Column('Share', 'c.py', shown='percent'), Column('Updates', of='Share', reach='random'))
    return table(rows=rows, columns=columns, checkpoint='runs/x', against='random', **changes)


def test_rows_may_start_from_one_checkpoint(tmp_path):
    found = of_one_checkpoint(seeds=1).jobs(tmp_path)
    assert [str(job.place.relative_to(tmp_path)) for job in found] == [
        'share/pretrained/seed0',
        'share/random/seed0',
    ]
    assert [job.settings[1:] for job in found] == [
        ('init.checkpoint=runs/x', 'init.weights=pretrained'),
        ('init.checkpoint=runs/x', 'init.weights=random'),
    ]
    assert all(job.after is None for job in found)


def test_a_column_may_be_another_evaluation_of_the_runs_of_one(tmp_path):
    columns = (
        Column('en', 'en.py'),
        Column('de', f'{TINY}:classify', settings=('data.source=de.csv',), of='en'),
    )
    rows = (Row('own', checkpoint='{own}'), Row('other', skip={'en': 'no'}))
    made = table(rows=rows, columns=columns, checkpoint='runs/x', checkpoints={'own': 'runs/own'}, seeds=1)
    training, evaluation = made.jobs(tmp_path)
    assert training.settings == ('train.seed=0', 'init.checkpoint=runs/own', 'init.weights=pretrained')
    place = tmp_path / 'en/own/seed0'
    assert (evaluation.after, evaluation.scores) == (place, str(place))
    assert evaluation.words == [
        'bert_jax.bin.eval_classify', f'--checkpoint={place}', f'--out={tmp_path}/de/own/seed0/scores.json',
        f'--config={TINY}:classify', '--config.data.source=de.csv',
    ]  # fmt: skip
    evaluation.place.mkdir(parents=True)
    scored = {'source': 'de.csv', 'split': 'test', 'scores': {'accuracy': 0.25}}
    (evaluation.place / 'scores.json').write_text(json.dumps(scored))
    evaluation.finish()
    assert made.numbers(tmp_path)['own', 'de'] == [0.25]


def test_a_column_may_be_of_the_pretraining_or_a_study_of_it(tmp_path):
    columns = (
        Column('Loss', score='loss', of='pretraining'),
        Column('Words', 'bin/study_language.py', 'word_alignment', ('limit=50',)),
    )
    made = table(rows=(Row('r', 'one.py'), Row('own', checkpoint='runs/own')), columns=columns, seeds=1)
    pretraining, study, other = made.jobs(tmp_path)
    assert pretraining.place == tmp_path / 'pretrain/r/seed0'
    assert (study.after, other.after) == (pretraining.place, None)
    assert study.words == ['bert_jax.bin.study_language', f'--checkpoint={pretraining.place}', f'--out={study.place}', '--limit=50']  # fmt: skip
    assert other.scores == 'runs/own'
    pretend(made, tmp_path, 'pretrain/r/seed0', loss=2.0)
    assert made.numbers(tmp_path)['r', 'Loss'] == [2.0]


def test_a_study_may_be_of_the_runs_of_another_column(tmp_path):
    columns = (
        Column('tags', 'pos.py'),
        Column('moved', 'bin/study_mean_removal.py', 'removed', ('home=en.py', 'away=de.py'), of='tags'),
    )
    training, study = table(rows=(Row('own', checkpoint='x'),), columns=columns, seeds=1).jobs(tmp_path)
    assert (study.after, study.scores) == (training.place, str(training.place))
    assert study.words[0] == 'bert_jax.bin.study_mean_removal'
    assert study.words[-2:] == ['--home=en.py', '--away=de.py']


def test_amounts_are_drawn(tmp_path):
    columns = [Column(f'{n}', f'{n}.py', shown='percent', panel='SST-2', x=n) for n in (100, 500)]
    rows = (Row('a', checkpoint='x'), Row('b', checkpoint='y'))
    made = table(rows=rows, columns=tuple(columns), amount='labels')
    assert figures.of_table(made, tmp_path) is None
    for place, accuracy in (
        ('100/a/seed0', 0.5),
        ('100/a/seed1', 0.7),
        ('500/a/seed0', 0.8),
        ('100/b/seed0', 0.4),
    ):
        pretend(made, tmp_path, place, accuracy=accuracy)
    (axes,) = figures.of_table(made, tmp_path).axes
    assert axes.get_title() == 'SST-2 (n = 2)'
    drawn = {c.get_label(): c.lines[0].get_xydata().round(3).tolist() for c in axes.containers}
    assert drawn == {'a': [[100, 60], [500, 80]], 'b': [[100, 40]]}
    rows = tuple(Row(f'{n}', checkpoint='x', x=n) for n in (1, 2))
    made = table(rows=rows, columns=(Column('Words', 'c.py'),), amount='MB', seeds=1)
    for row, accuracy in (('1', 0.1), ('2', 0.3)):
        pretend(made, tmp_path, f'words/{row}/seed0', accuracy=accuracy)
    (axes,) = figures.of_table(made, tmp_path).axes
    assert axes.get_title() == 'Words (n = 1)'
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.3]]


def test_scores_by_name_stand_side_by_side_with_published_ones(tmp_path):
    columns = [Column(f'NLI {k}', f'{k}.py', panel='NLI', x=k) for k in ('en', 'de')]
    rows = (Row('a', checkpoint='x'), Row('b', checkpoint='y'))
    published = {'a': {'NLI de': 0.7, 'NLI en': 0.8}}
    made = table(rows=rows, columns=tuple(columns), published=published, amount='language', seeds=1)
    for place, accuracy in (('nli_en/a/seed0', 0.5), ('nli_de/a/seed0', 0.4), ('nli_de/b/seed0', 0.3)):
        pretend(made, tmp_path, place, accuracy=accuracy)
    (axes,) = figures.of_table(made, tmp_path).axes
    assert [x.get_text() for x in axes.get_xticklabels()] == ['en', 'de']
    drawn = {c.get_label(): c.lines[0].get_xydata().round(1).tolist() for c in axes.containers}
    assert drawn == {
        'a': [[-0.2, 0.5], [0.8, 0.4]],
        'a, published': [[0, 0.8], [1, 0.7]],
        'b': [[1.2, 0.3]],
    }


def test_how_soon_a_row_is_as_good_as_another_at_its_best(tmp_path):
    made = of_one_checkpoint()
    pretend(made, tmp_path, 'share/random/seed0', 0.5, 0.6, 0.8, 0.7)
    pretend(made, tmp_path, 'share/random/seed1', 0.5, 0.6, 0.6, 0.6)  # the best are 0.8 and 0.6: 0.7
    pretend(made, tmp_path, 'share/pretrained/seed0', 0.6, 0.7, 0.9, 0.9)
    pretend(made, tmp_path, 'share/pretrained/seed1', 0.6, 0.6, 0.6, 0.69)
    numbers = made.numbers(tmp_path)
    assert numbers['pretrained', 'Updates'] == [2.0, np.inf]
    assert numbers['random', 'Updates'] == [3.0, np.inf]
    assert numbers['pretrained', 'Share'] == pytest.approx([90, 69])
    share, updates, together = made.differences(tmp_path)
    assert together.endswith('of 2 tests together at 5 % (Holm): none')
    assert tables._holm({'a': 0.03, 'b': 0.01, 'c': 0.02, 'd': 0.2}) == ['b']
    assert tables._holm({'a': 0.02, 'b': 0.01}) == ['b', 'a']
    p = stats.ttest_ind([90, 69], [70, 60], equal_var=False).pvalue
    assert share == f"Share: pretrained 79.5 ± 14.8 (2), random 65.0 ± 7.1 (2), p = {p:.2g} (Welch's t-test)"
    p = stats.mannwhitneyu([2, 9], [3, 9]).pvalue  # never is after all steps
    assert (
        updates == f"Updates: pretrained 2 (1 of 2), random 3 (1 of 2), p = {p:.2g} (Mann and Whitney's test)"
    )


def test_cells_say_what_they_have():
    assert Column('x', shown='percent').text([0.69499, 0.69531]) == '0.7 ± 0.0 (2)'
    assert Column('x').text([0.69499, 0.69531]) == '0.6951 ± 0.0002 (2)'
    assert Column('x', reach='y').text([5, np.inf, 3]) == '5 (2 of 3)'
    assert Column('x', reach='y').text([5, np.inf, np.inf]) == 'never (1 of 3)'


def test_a_score_that_the_runs_have_not_costs_its_cell_alone(tmp_path, caplog):
    made = table()
    pretend(made, tmp_path, 'share/one_way/seed0', f1=0.5)
    _, one, _ = made.lines(tmp_path, {})
    assert one[1] == "no score 'accuracy'"
    assert 'known are' in caplog.text


def test_two_cells_never_share_a_folder(tmp_path):
    rows = (Row('a b', config='x.py'), Row('c', config='x.py'))
    for columns in ((Column('pretrain', 'y.py'),), (Column('u v', 'y.py'), Column('u-v', 'y.py'))):
        with pytest.raises(UserError, match='would have the folder'):
            table(rows=rows, columns=columns).jobs(tmp_path)
    assert tables.folder('..') not in ('', '..')
    assert tables.folder('α') != tables.folder('β')


def test_runs_without_spread_are_not_tested(tmp_path):
    made = of_one_checkpoint()
    for row in ('random', 'pretrained'):
        for seed in (0, 1):
            pretend(made, tmp_path, f'share/{row}/seed{seed}', 0.5)
    assert made.differences(tmp_path)[0].endswith('no spread, so no test')


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'checkpoint': ''}, 'give --config.checkpoint=DIR'),
        ({'rows': (Row('random', checkpoint='{german}'),), 'columns': ()}, '{german} is none of'),
        ({'against': 'rando'}, "did you mean 'random'"),
        ({'columns': (Column('Share'),)}, 'needs a config, or another column'),
        ({'columns': (Column('Share', reach='random'),)}, 'or another column to be of'),
        ({'columns': (Column('Updates', of='Share'),)}, "no 'Share'"),
        ({'columns': (Column('Words', 'bin/x.py'), Column('de', 'de.py', of='Words'))}, "no 'Words'"),
        ({'columns': (Column('de', 'de.py', of='pretraining'),)}, 'has no config of its own'),
    ],
)
def test_a_table_that_makes_no_sense(changes, problem):
    with pytest.raises(UserError, match=problem):
        dataclasses.replace(of_one_checkpoint(), **changes)


@pytest.fixture(scope='module')
def made(tmp_path_factory, corpus, labelled):
    """A table config, the folder of its runs, and what its door printed."""
    folder = tmp_path_factory.mktemp('table')
    config = folder / 'config.py'
    config.write_text(CONFIG.format(tiny=TINY, source=labelled, corpus=corpus))
    flags = ('bert_jax.bin.table', f'--config={config}', f'--workdir={folder}/runs')
    before = run_here(*flags, '--list')
    return config, folder / 'runs', before, run_here(*flags, '--jobs=2')


def test_a_table_is_run_and_printed(made):
    _, workdir, before, done = made
    assert '2 of 2 runs are missing' in before.stdout
    assert '| GPT | 90 | not run |  |' in before.stdout
    assert done.returncode == 0, done.stderr
    assert '| GPT | 90 | ' in done.stdout
    assert 'not run' not in done.stdout
    assert {p.name for p in workdir.glob('table.*')} == {
        f'table.{kind}' for kind in ('md', 'csv', 'tex', 'html', 'json')
    }
    assert 'evaluation' in (workdir / 'class/gpt/seed0' / jobs.LOG).read_text()


def test_what_is_finished_is_not_run_again(made, monkeypatch):
    config, workdir, *_ = made
    monkeypatch.setattr(jobs, '_start', lambda *_: pytest.fail('ran'))
    assert jobs.run(tables.read(str(config)).jobs(workdir), workdir) == {}
    more = tables.read(str(config), ['seeds=2']).jobs(workdir)
    assert [job.finished for job in more] == [True, True, False, False]


def test_a_run_that_fails_leaves_the_others(tmp_path, labelled):
    bad = Job(tmp_path / 'bad', f'{TINY}:classify', (f'data.source={labelled}',))
    waits = Job(tmp_path / 'waits', f'{TINY}:classify', ('data.source=x',), tmp_path / 'bad')
    lost = Job(
        tmp_path / 'lost', f'{TINY}:classify', ('data.source=x', f'init.checkpoint={tmp_path / "none"}')
    )
    failed = jobs.run([bad, waits, lost], tmp_path)
    assert 'A downstream task needs a tokenizer' in failed[tmp_path / 'bad']
    assert 'There is no checkpoint' in failed[tmp_path / 'lost']
    assert not (tmp_path / 'lost').exists()
    assert failed[tmp_path / 'waits'] == f"'{tmp_path / 'bad'}' failed"


def test_why_a_run_failed_is_read_from_its_own_lines(tmp_path):
    job = Job(tmp_path, 'x.py', ())
    (tmp_path / jobs.LOG).write_text('error: of yesterday\n')
    process = subprocess.Popen(
        [sys.executable, '-c', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)']
    )
    process.wait()
    failed = {}
    jobs._end(jobs._Running(job, process, 0.0, (tmp_path / jobs.LOG).stat().st_size), failed)
    assert failed[tmp_path] == f'ended by SIGKILL: see {tmp_path / jobs.LOG}'


def test_settings_that_cannot_be_are_said_before_any_run(tmp_path):
    with pytest.raises(UserError, match="did you mean 'steps'"):
        jobs.run([Job(tmp_path / 'x', f'{TINY}:classify', ('train.step=1',))], tmp_path)
    assert not (tmp_path / 'x').exists()


def test_told_to_stop_it_stops_its_runs(tmp_path, monkeypatch):
    started = []

    def start(job, cores):
        started.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']))
        return jobs._Running(job, started[-1], 0.0, 0)

    monkeypatch.setattr(jobs, '_start', start)
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    todo = [Job(tmp_path / name, f'{TINY}:classify', ('data.source=x',)) for name in 'ab']
    with pytest.raises(KeyboardInterrupt):
        jobs.run(todo, tmp_path, at_once=2)
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_cores_are_shared():
    every = sorted(os.sched_getaffinity(0))
    found = jobs._shares(2)
    assert sorted(set().union(*found)) == every
    assert jobs._shares(1) == [set()]


TABLES = [
    p.name for p in sorted((ROOT / 'configs' / 'tables').glob('*.py')) if 'def get_config' in p.read_text()
]


@pytest.mark.parametrize(
    ('name', 'scale'), [*itertools.product(TABLES, ['mini', 'paper']), ('dna.py', 'small')]
)
def test_every_run_of_a_table_has_settings_that_can_be(name, scale, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = tables.read(f'configs/tables/{name}:{scale}', ['seeds=1', 'checkpoint=runs/english']).jobs(
        pathlib.Path('runs')
    )
    assert len(found) >= {'bert_table2.py': 4, 'bert_table7.py': 7, 'dna.py': 6}.get(name, 11)
    for job in found:
        if not job.studies:
            experiment.read(job.config, job.settings)


def test_the_launcher_names_folder_and_scale(tmp_path):
    words = [sys.executable, 'launch/table.py', 'configs/tables/bert_table1.py', '--list']
    for scale, name, runs in (('mini', 'bert_table1', 16), ('paper', 'bert_table1_paper', 48)):
        said = subprocess.run(
            [*words, f'--scale={scale}', '--config.checkpoint=runs/none'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f'{runs} of {runs} runs are missing' in said
        assert f'runs/{name}/mnli/random_weights/seed0' in said
        assert '84.6' in said


@pytest.mark.parametrize(
    ('change', 'problem'), [('row', 'needs rows with a name'), ('seeds', 'table.seeds=0 must be at least 1')]
)
def test_a_table_that_cannot_be_is_said(tmp_path, corpus, labelled, change, problem):
    config = tmp_path / 'config.py'
    text = CONFIG.format(tiny=TINY, source=labelled, corpus=corpus)
    config.write_text(text.replace('config.rows = (', 'config.rows = () and (') if change == 'row' else text)
    with pytest.raises(UserError, match=problem):
        tables.read(str(config), ['seeds=0'] if change == 'seeds' else ['text=y'])
