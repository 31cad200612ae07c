"""Significance tests of the differences between rows of a table."""

import numpy as np
import pytest
from scipy import stats

from bert_jax.experiments import comparisons, significance
from tests.experiments.made_tables import table_of_one_checkpoint, write_run


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
    share, updates, together = comparisons.differences(table, tmp_path)
    assert together.endswith('after correction for 2 tests (Holm): none')
    assert significance.holm({'a': 0.03, 'b': 0.01, 'c': 0.02, 'd': 0.2}) == ['b']
    assert significance.holm({'a': 0.04, 'b': 0.01}) == ['b', 'a'], 'the second test has the whole level'
    p = stats.ttest_ind([90, 69], [70, 60], equal_var=False).pvalue
    assert share == f"Share: pretrained 79.5 ± 14.8 (2), random 65.0 ± 7.1 (2), p = {p:.2g} (Welch's t-test)"
    # Never is later than all steps. No two of the ranks 1, 2, 3.5 and 3.5 are less extreme than 1 and 3.5: p = 1.
    assert updates == 'Updates: pretrained 2 (1 of 2), random 3 (1 of 2), p = 1 (Mann-Whitney U test)'


def test_mann_whitney_test_is_exact_with_ties():
    # 2 of the 20 ways to choose 3 of 6 values, and 2 of 252 to choose 5 of 10, separate equal steps from infinite ones.
    assert significance.mann_whitney([100] * 3, [np.inf] * 3) == pytest.approx(2 / 20)
    assert significance.mann_whitney([100, 100, 200, 200, 300], [np.inf] * 5) == pytest.approx(2 / 252)


def test_runs_without_variance_are_not_tested(tmp_path):
    table = table_of_one_checkpoint()
    for row in ('random', 'pretrained'):
        for seed in (0, 1):
            write_run(table, tmp_path, f'share/{row}/seed{seed}', 0.5)
    assert comparisons.differences(table, tmp_path)[0].endswith('no variance, not tested')


def test_scores_that_are_not_finite_are_not_tested(tmp_path):
    table = table_of_one_checkpoint()
    write_run(table, tmp_path, 'share/random/seed0', 0.5, None, 0.8)
    write_run(table, tmp_path, 'share/random/seed1', None, 0.6, 0.4)
    for seed, accuracy in enumerate((0.7, 0.9)):
        write_run(table, tmp_path, f'share/pretrained/seed{seed}', accuracy, None)
    share, updates = comparisons.differences(table, tmp_path)
    assert (
        share == 'Share: pretrained nan ± nan (2), random 60.0 ± 28.3 (2), a score is not finite, not tested'
    )
    assert updates.startswith('Updates: pretrained 1 (2 of 2), random 3 (1 of 2), p = '), (
        'the best are 0.8 and 0.6'
    )
    assert table.json_values(tmp_path)['pretrained']['Share'] == [None, None]
