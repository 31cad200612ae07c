"""Compare the scores of a table: with published ones, between rows, and with targets."""

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from bert_jax.core import metrics
from bert_jax.experiments import significance
from bert_jax.experiments.tables import Table


def rank_correlations(table: Table, workdir: pathlib.Path) -> list[str]:
    """For each column, describe the rank correlation (Spearman) of the rows' mean scores with the published ones."""
    from scipy import stats

    values = table.values(workdir)
    found = []
    for column in table.columns:
        pairs = [
            (table.published[row.name][column.name], statistics.fmean(values[row.name, column.name]))
            for row in table.rows
            if column.name in table.published.get(row.name, {}) and values[row.name, column.name]
        ]
        pairs = [pair for pair in pairs if math.isfinite(pair[1])]
        if column.score == 'loss' and len(table.loss_terms(workdir, column, *table.published)) > 1:
            found.append(f'{column.name}: no rank correlation, since the losses are sums of different terms')
        elif len(pairs) > 2:
            rank = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
            found.append(
                f'{column.name}: rank correlation with the published scores {rank:+.2f} ({len(pairs)} rows)'
            )
    return found


def differences(table: Table, workdir: pathlib.Path) -> list[str]:
    """For each column, test whether each row differs from its `baseline`, and whether it reaches the `target`.

    The test is Welch's t-test, or the Mann-Whitney U test for columns with `until_score_of`, whose values may be
    infinite. The last line lists the differences that remain significant after correction for all tests of the table
    (Holm 1979). Targets are tested by a one-sided t-test without correction.
    """
    values, found, p_values = table.values(workdir), [], dict[str, float]()
    for column in table.columns:
        for row in table.rows:
            baseline = row.baseline or table.baseline
            ours, base = values[row.name, column.name], values.get((baseline, column.name), [])
            if baseline in ('', row.name) or min(len(ours), len(base)) < 2:
                continue
            both = f'{row.name} {column.cell(ours)}, {baseline} {column.cell(base)}'
            reason = '' if column.until_score_of else significance.reason_not_to_test(ours, base)
            if column.score == 'loss' and len(table.loss_terms(workdir, column, row.name, baseline)) > 1:
                reason = 'the losses are sums of different terms'
            if reason:
                found.append(f'{column.name}: {both}, {reason}, not tested')
                continue
            if column.until_score_of:
                p, test = significance.mann_whitney(ours, base), 'Mann-Whitney U test'
            else:
                p, test = significance.welch(ours, base), "Welch's t-test"
            p_values[f'{column.name} of {row.name}'] = p
            found.append(f'{column.name}: {both}, p = {p:.2g} ({test})')
    if len(p_values) > 1:
        significant = '; '.join(significance.holm(p_values)) or 'none'
        found.append(f'Significant at 5 % after correction for {len(p_values)} tests (Holm): {significant}')
    return found + _target_lines(table, values)


def _target_lines(table: Table, values: Mapping[tuple[str, str], Sequence[float]]) -> list[str]:
    """Say of each row whether it reaches the targets, by a one-sided t-test."""
    found = []
    for column in table.columns:
        for row in table.rows:
            ours = values[row.name, column.name]
            if column.target and len(ours) > 1:
                p = significance.better_than(ours, column.target, metrics.is_lower_better(column.score))
                found.append(
                    f'{column.name}: {row.name} {column.cell(ours)}, target {column.target:g}, p = {p:.2g} (one-sided t-test)'
                )
    return found
