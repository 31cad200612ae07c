"""Figures of tables and sweeps."""

import pytest

from bert_jax.experiments.tables import Column, Row
from bert_jax.reports import figures
from tests.experiments.made_tables import CLASSIFY, make_table, write_run


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


def test_figure_with_series_of_rows(tmp_path):
    rows = tuple(
        Row(f'{recipe}, {name}', checkpoint='x', x=recipe, series=name)
        for recipe in ('old', 'new')
        for name in ('AdamW', 'Muon')
    )
    table = make_table(rows=rows, columns=(Column('SST-2', CLASSIFY),), x_label='recipe', seeds=1)
    for i, name in enumerate(('old_adamw', 'old_muon', 'new_adamw', 'new_muon')):
        write_run(table, tmp_path, f'sst_2/{name}/seed0', accuracy=i / 10)
    (axes,) = figures.plot_table(table, tmp_path).axes
    assert [x.get_text() for x in axes.get_xticklabels()] == ['old', 'new']
    drawn = {c.get_label(): c.lines[0].get_xydata()[:, 1].round(1).tolist() for c in axes.containers}
    assert drawn == {'AdamW': [0.0, 0.2], 'Muon': [0.1, 0.3]}


def make_summary(**values):
    """A sweep of one key, whose trials have two seeds with the scores 0.5 and 0.7."""
    ((key, choices),) = values.items()
    trials = [{'settings': {key.replace('__', '.'): x}, 'scores': [0.5, 0.7]} for x in choices]
    return {'score': 'accuracy', 'trials': trials}


def test_figure_of_a_sweep_averages_the_seeds():
    summary = make_summary(optim__learning_rate=(2e-5, 5e-5))
    summary['trials'][1]['scores'] = [0.9, None]
    (axes,) = figures.plot_sweep(summary).axes
    (container,) = axes.containers
    assert container.lines[0].get_xydata().round(6).tolist() == [[2e-5, 0.6], [5e-5, 0.9]]
    first, second = container.lines[2][0].get_segments()
    assert first[:, 1].round(4).tolist() == [0.4586, 0.7414]
    assert second[:, 1].tolist() == [0.9, 0.9]
    assert [x.get_text() for x in axes.get_xticklabels()] == ['2e-05', '5e-05']
    assert figures.plot_sweep(make_summary(optim__learning_rate=(2e-5,))) is None, 'nothing varies'


@pytest.mark.parametrize(
    ('key', 'values', 'scale'),
    [
        ('optim__learning_rate', (2e-5, 5e-5), 'log'),
        ('optim__learning_rate', (0.0, 1e-4, 3e-4), 'symlog'),
        ('data__limit', (100, 1000), 'log'),
        ('task__mask_rate', (0.15, 0.4), 'linear'),
        ('task__whole_word_masking', (False, True), 'linear'),
        ('train__steps', ('2 epochs', '3 epochs'), 'linear'),
        ('data__limit', (0, 0), None),
    ],
)
def test_learning_rates_and_wide_ranges_have_a_logarithmic_axis(key, values, scale):
    figure = figures.plot_sweep(make_summary(**{key: values}))
    assert (figure and figure.axes[0].get_xscale()) == scale
