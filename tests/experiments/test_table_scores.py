"""Scores of tables: cells, published scores, rank correlations, and steps until a score is reached."""

import dataclasses
import json

import numpy as np
import pytest

from bert_jax.experiments import comparisons, runs
from bert_jax.experiments.tables import Column, Row
from bert_jax.reports import export
from tests.experiments.made_tables import CLASSIFY, PRETRAIN, make_table, table_of_one_checkpoint, write_run


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


def test_unknown_score_affects_only_its_cell(tmp_path, caplog):
    table = make_table()
    write_run(table, tmp_path, 'share/one_way/seed0', f1=0.5)
    _, one, _ = table.lines(tmp_path, {})
    assert one[1] == "no score 'accuracy'"
    assert 'Known scores: ' in caplog.text


def test_format_of_cells():
    assert Column('x', format='percent').cell([0.69499, 0.69531]) == '0.7 ± 0.0 (2)'
    assert Column('x').cell([0.69499, 0.69531]) == '0.6951 ± 0.0002 (2)'
    assert Column('x', until_score_of='y').cell([5, np.inf, 3]) == '5 (2 of 3)'
    assert Column('x', until_score_of='y').cell([5, np.inf, np.inf]) == 'never (1 of 3)'


def test_rank_correlation_with_the_published_scores(tmp_path):
    rows = tuple(Row(f'r{i}', PRETRAIN) for i in range(4))
    published = {f'r{i}': {'Share': 10.0 * i} for i in range(4)}
    table = make_table(rows=rows, published=published)
    for i, accuracy in enumerate((0.1, 0.3, 0.2, 0.4)):
        write_run(table, tmp_path, f'share/r{i}/seed0', accuracy=accuracy)
    (line,) = comparisons.rank_correlations(table, tmp_path)
    assert line == 'Share: rank correlation with the published scores +0.80 (4 rows)'


def test_rank_correlation_leaves_out_rows_without_a_finite_score(tmp_path):
    rows = tuple(Row(f'r{i}', PRETRAIN) for i in range(4))
    table = make_table(rows=rows, published={f'r{i}': {'Share': 10.0 * i} for i in range(4)})
    for i, accuracy in enumerate((0.1, 0.3, None, 0.4)):
        write_run(table, tmp_path, f'share/r{i}/seed0', accuracy=accuracy)
    (line,) = comparisons.rank_correlations(table, tmp_path)
    assert line == 'Share: rank correlation with the published scores +1.00 (3 rows)'


def test_first_step_as_good_as_a_target():
    curve = {2: 0.9, 4: 0.5, 6: 0.7}
    assert runs.first_step(curve, 0.6, lower_is_better=True) == 4
    assert runs.first_step(curve, 0.6, lower_is_better=False) == 2
    assert runs.first_step(curve, 0.1, lower_is_better=True) == np.inf
    assert runs.first_step(curve, np.nan, lower_is_better=True) == np.inf


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


def test_numbers_have_the_unit_of_the_table(tmp_path):
    table = table_of_one_checkpoint(published={'random': {'Share': 65.0}})
    write_run(table, tmp_path, 'share/random/seed0', 0.5, 0.75)
    write_run(table, tmp_path, 'share/random/seed1', 0.5, 0.5)
    assert table.numbers(tmp_path) == [
        ['row', 'column', 'score', 'mean', 'std', 'median', 'n', 'published'],
        ['pretrained', 'Share', 'accuracy', None, None, None, 0, None],
        ['random', 'Share', 'accuracy', 62.5, pytest.approx(17.67767), 62.5, 2, 65.0],
        ['pretrained', 'Updates', 'accuracy', None, None, None, 0, None],
        ['random', 'Updates', 'accuracy', np.inf, None, 2.0, 2, None],
    ]


def test_best_mode_of_the_config_says_which_scores_are_better(tmp_path):
    settings = ('checkpoint.best_metric=accuracy', 'checkpoint.best_mode=min')
    columns = (
        Column('Share', CLASSIFY, settings=settings),
        Column('Updates', source_column='Share', until_score_of='r'),
    )
    table = make_table(rows=(Row('r', checkpoint='x'),), columns=columns, seeds=1)
    write_run(table, tmp_path, 'share/r/seed0', 0.9, 0.4, 0.6)
    assert table.values(tmp_path)['r', 'Updates'] == [2]


def test_losses_with_different_terms_are_not_compared(tmp_path):
    rows = tuple(Row(name, PRETRAIN) for name in 'abc')
    published = {name: {'Loss': 1.0 + i} for i, name in enumerate('abc')}
    columns = (Column('Loss', score='loss', source_column='pretraining'),)
    table = make_table(rows=rows, columns=columns, published=published, baseline='a')
    for i, row in enumerate('abc'):
        for seed in (0, 1):
            terms = (
                {'mlm_loss': 2.0 + i + seed, 'next_loss': 0.5} if row == 'b' else {'mlm_loss': 2.0 + i + seed}
            )
            folder = f'pretrain/{row}/seed{seed}'
            write_run(table, tmp_path, folder, loss=sum(terms.values()), **terms)
    second, third = comparisons.differences(table, tmp_path)[:2]
    assert second.endswith('(2), the losses are sums of different terms, not tested')
    assert third.endswith("(Welch's t-test)")
    (line,) = comparisons.rank_correlations(table, tmp_path)
    assert line == 'Loss: no rank correlation, since the losses are sums of different terms'


def test_rows_have_their_own_baselines_and_targets(tmp_path):
    rows = (Row('a', PRETRAIN), Row('b', PRETRAIN, baseline='a'), Row('c', PRETRAIN, baseline='b'))
    columns = (Column('Loss', score='mlm_loss', source_column='pretraining', target=2.0),)
    table = make_table(rows=rows, columns=columns, seeds=3)
    for row, loss in zip('abc', (2.5, 1.99, 1.0), strict=True):
        for seed in range(3):
            write_run(table, tmp_path, f'pretrain/{row}/seed{seed}', loss=loss, mlm_loss=loss + seed / 50)
    b, c, holm, *targets = comparisons.differences(table, tmp_path)
    assert b.startswith('Loss: b 2.01 ± 0.02 (3), a 2.52 ± 0.02 (3), p = ')
    assert c.startswith('Loss: c 1.02 ± 0.02 (3), b 2.01 ± 0.02 (3), p = ')
    assert holm.endswith('Loss of b; Loss of c') or holm.endswith('Loss of c; Loss of b')
    assert [line.split(',')[0] for line in targets] == [
        f'Loss: {row} {loss} ± 0.02 (3)' for row, loss in zip('abc', ('2.52', '2.01', '1.02'), strict=True)
    ]
    p_values = [float(line.rpartition('p = ')[2].split()[0]) for line in targets]
    assert p_values[0] > 0.99
    assert 0.5 < p_values[1] < 0.9
    assert p_values[2] < 1e-3


def test_time_of_training_without_overhead(tmp_path):
    columns = (Column('minutes', score='training_minutes', source_column='pretraining'),)
    table = make_table(rows=(Row('r', PRETRAIN),), columns=columns, seeds=1)
    write_run(table, tmp_path, 'pretrain/r/seed0', loss=1.0)
    starts = [
        {'began': 0, 'time': 200, 'from': 0, 'step': 10, 'overhead': {'start': 20.0, 'compilation': 60.0}},
        {'began': 300, 'time': 400, 'from': 5, 'step': 20, 'overhead': {'start': 10.0}},
    ]
    (tmp_path / 'pretrain/r/seed0/progress.json').write_text(json.dumps({'total': 20, 'starts': starts}))
    assert table.values(tmp_path)['r', 'minutes'] == [(120 / 2 + 90) / 60]
