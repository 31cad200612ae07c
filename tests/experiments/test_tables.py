"""Definition of tables: their jobs and the order of them, inconsistent tables, and the tables in configs/tables."""

import dataclasses
import pathlib

import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import tables
from bert_jax.experiments.tables import Column, Row
from tests.experiments.made_tables import (
    CLASSIFY,
    PRETRAIN,
    finish_with_scores,
    make_table,
    table_of_one_checkpoint,
    write_run,
)
from tests.runs import ROOT, TINY


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


def test_rows_can_be_checkpoints_along_the_run_of_another(tmp_path):
    rows = (Row('start', run='end', step=5), Row('end', PRETRAIN))
    columns = (
        Column('Tuned', CLASSIFY),
        Column('BLiMP', f'{ROOT}/configs/eval/lm.py:blimp'),
        Column('Loss', score='loss', source_column='pretraining'),
    )
    table = make_table(rows=rows, columns=columns, seeds=2)
    pretraining, *_, tuned, evaluation = table.jobs(tmp_path)[:5]
    assert pretraining.folder == tmp_path / 'pretrain/end/seed0'
    assert (tuned.depends_on, evaluation.depends_on) == (pretraining.folder, pretraining.folder)
    checkpoint = f'{pretraining.folder}/checkpoints/5'
    assert f'init.checkpoint={checkpoint}' in tuned.settings
    assert evaluation.checkpoint == checkpoint
    assert len(table.jobs(tmp_path)) == 2 * 5
    write_run(table, tmp_path, 'pretrain/end/seed0', loss=2.0)
    assert table.values(tmp_path)['end', 'Loss'] == [2.0]
    assert table.values(tmp_path)['start', 'Loss'] == [], 'the score of the last step is not that of another'


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (Row('r', run='end'), 'needs both run and step'),
        (Row('r', PRETRAIN, run='end', step=5), 'needs both run and step, and no config'),
        (Row('r', run='other', step=5), "no row or column 'other'"),
        (Row('r', run='r', step=5), "no row or column 'r'"),
    ],
)
def test_rows_with_a_wrong_run_are_refused(row, message):
    with pytest.raises(UserError, match=message):
        make_table(rows=(row, Row('end', PRETRAIN)), columns=(Column('Tuned', CLASSIFY),))


def test_rows_can_continue_the_run_of_another(tmp_path):
    rows = (
        Row('base', checkpoint='runs/x'),
        Row('one', PRETRAIN, start='base'),
        Row('two', PRETRAIN, ('data.length=16',), start='one'),
    )
    columns = (
        Column('Share', f'{TINY}:classify', source_column='pretraining'),
        Column('Loss', source_column='Share', score='loss'),
        Column('Search', 'bin/eval_retrieval.py', 'ndcg_at_10', ('source=beir/x',)),
    )
    table = make_table(rows=rows, columns=columns, seeds=2)
    found = {str(job.folder.relative_to(tmp_path)): job for job in table.jobs(tmp_path)}
    assert {name for name in found if '/base/' in name} == {'share/base/seed0', 'search/base/seed0'}
    one, two = (found[f'pretrain/{name}/seed1'] for name in ('one', 'two'))
    assert (one.settings, one.depends_on) == (('train.seed=1', 'init.checkpoint=runs/x'), None)
    assert two.settings == ('data.length=16', 'train.seed=1', f'init.checkpoint={one.folder}')
    assert two.depends_on == one.folder
    share, search = (found[f'{name}/two/seed1'] for name in ('share', 'search'))
    assert (share.checkpoint, share.depends_on) == (str(two.folder), two.folder)
    assert share.arguments[0] == 'bert_jax.bin.eval_classify'
    assert search.arguments == [
        'bert_jax.bin.eval_retrieval', f'--checkpoint={two.folder}', f'--out={search.folder}/scores.json',
        '--source=beir/x',
    ]  # fmt: skip
    names = [*found]
    assert names.index('pretrain/one/seed0') < names.index('pretrain/two/seed0')
    finish_with_scores(share, accuracy=0.25, loss=2.0)
    values = table.values(tmp_path)
    assert (values['two', 'Share'], values['two', 'Loss']) == ([0.25], [2.0])


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (Row('r', PRETRAIN, start='later'), "starts at 'later', which is no earlier row"),
        (Row('r', PRETRAIN, start='r'), "starts at 'r', which is no earlier row"),
        (Row('r', PRETRAIN, start='step'), "starts at 'later', which is no earlier row"),
        (Row('r', PRETRAIN, start='frist'), "no row or column 'frist': did you mean 'first'"),
        (Row('r', checkpoint='runs/x', start='first'), 'needs config, and no checkpoint, for a run'),
        (
            Row('r', PRETRAIN, checkpoint='runs/x', start='first'),
            'needs config, and no checkpoint, for a run',
        ),
    ],
)
def test_rows_with_a_wrong_start_are_refused(row, message):
    rows = (Row('first', PRETRAIN), Row('step', run='later', step=5), row, Row('later', PRETRAIN))
    with pytest.raises(UserError, match=message):
        make_table(rows=rows, columns=(Column('Tuned', CLASSIFY),))


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
    finish_with_scores(evaluation, accuracy=0.25)
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


def test_column_can_evaluate_the_pretraining_as_a_language_model(tmp_path):
    blimp = f'{ROOT}/configs/eval/lm.py:blimp'
    columns = (
        Column('BLiMP', blimp, settings=('eval.limit=50',), format='percent'),
        Column('anaphors', score='accuracy/anaphor_agreement', source_column='BLiMP'),
    )
    rows = (Row('r', PRETRAIN), Row('own', checkpoint='runs/own'))
    table = make_table(rows=rows, columns=columns, seeds=2)
    pretraining, evaluation, other = table.jobs(tmp_path)[:3]
    assert (evaluation.depends_on, other.checkpoint) == (pretraining.folder, 'runs/own')
    assert evaluation.arguments == [
        'bert_jax.bin.eval_lm', f'--checkpoint={pretraining.folder}', f'--out={evaluation.folder}/scores.json',
        f'--config={blimp}', '--config.eval.limit=50',
    ]  # fmt: skip
    assert sum(job.checkpoint == 'runs/own' for job in table.jobs(tmp_path)) == 1, 'without randomness, once'
    finish_with_scores(evaluation, **{'accuracy': 0.75, 'accuracy/anaphor_agreement': 0.5})
    values = table.values(tmp_path)
    assert (values['r', 'BLiMP'], values['r', 'anaphors']) == ([75.0], [0.5])


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


def test_unknown_commands_are_found_before_anything_runs(tmp_path):
    column = Column('Search', 'bin/eval_retrievl.py', 'ndcg_at_10')
    (job,) = make_table(rows=(Row('own', checkpoint='x'),), columns=(column,), seeds=1).jobs(tmp_path)
    with pytest.raises(UserError, match=r"no command 'bin/eval_retrievl.py': did you mean 'eval_retrieval'"):
        job.read_experiment()


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
    finish_with_scores(study, 'study.json', word_alignment=0.5, line_alignment=0.25)
    values = table.values(tmp_path)
    assert (values['fixed', 'Words'], values['fixed', 'Lines']) == ([0.5], [0.25])


def test_cells_must_have_different_folders(tmp_path):
    rows = (Row('a b', config='x.py'), Row('c', config='x.py'))
    for columns in ((Column('pretrain', 'y.py'),), (Column('u v', 'y.py'), Column('u-v', 'y.py'))):
        with pytest.raises(UserError, match='have the same folder'):
            make_table(rows=rows, columns=columns).jobs(tmp_path)
    assert tables.folder_name('..') not in ('', '..')
    assert tables.folder_name('α') != tables.folder_name('β')


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
    ],
)
def test_inconsistent_table_is_an_error(changes, problem):
    with pytest.raises(UserError, match=problem):
        dataclasses.replace(table_of_one_checkpoint(), **changes)


TABLES = [
    p.name for p in sorted((ROOT / 'configs' / 'tables').glob('*.py')) if 'def get_config(' in p.read_text()
]

WITH_SIZES = [
    name
    for name in TABLES
    if name not in ('embeddings.py', 'emergence.py', 'objectives.py', 'recipes.py', 'uses.py')
]


@pytest.mark.parametrize(
    'spec',
    [
        'uses.py',
        'recipes.py',
        'recipes.py:rates',
        'objectives.py',
        'embeddings.py',
        'emergence.py',
        'emergence.py:bilingual',
        '../speedrun/cpu.py',
        '../speedrun/cpu.py:ideas',
        'dna.py:small',
        *(f'{name}:{size}' for name in WITH_SIZES for size in ('mini', 'paper')),
    ],
)
def test_all_jobs_of_a_table_have_valid_settings(spec, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = tables.read(f'configs/tables/{spec}', ['seeds=1', 'checkpoint=runs/english']).jobs(
        pathlib.Path('runs')
    )
    name = spec.partition(':')[0]
    assert len(found) >= {
        'bert_table2.py': 4,
        'bert_table7.py': 7,
        'dna.py': 6,
        'emergence.py': 9,
        '../speedrun/cpu.py': 8,
    }.get(name, 11)
    for job in found:
        job.read_experiment()


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
