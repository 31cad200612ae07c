"""Draw the figures of tables and sweeps."""

import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.experiments.tables import Table
from bert_jax.reports import plots


def plot_table(table: Table, workdir: pathlib.Path) -> Any:
    """Plot our scores and the published ones against the x values of the rows or of the columns.

    Returns:
      A Matplotlib figure; None if the table has no `x_label`, or no scores to plot yet.
    """
    values = table.values(workdir)
    rows_on_x = any(row.x for row in table.rows)
    panels: dict[str, dict[str, list[tuple[float | str, list[float]]]]] = {}
    for row in table.rows:
        for column in table.columns:
            ours = values[row.name, column.name]
            if ours and (row.x if rows_on_x else column.panel):
                panel = panels.setdefault(column.panel or column.name, {})
                of_row = ', '.join(filter(None, [column.panel and column.name, row.series]))
                label = of_row if rows_on_x else row.name
                x = row.x if rows_on_x else column.x
                panel.setdefault(label, []).append((x, ours))
                if (published := table.published.get(row.name, {}).get(column.name)) is not None:
                    panel.setdefault(f'{label}, published', []).append((x, [published]))
    return plots.plot_means(panels, table.x_label) if table.x_label and panels else None


def plot_sweep(summary: Mapping[str, Any]) -> Any:
    """Plot the mean score of each trial against each setting that varies.

    Args:
      summary: scores of a sweep, as returned by `sweeps.summarize`.

    Returns:
      A Matplotlib figure; None if no setting varies.
    """
    panels: dict[str, list[tuple[Any, list[float]]]] = {}
    for trial in summary['trials']:
        if scores := [score for score in trial['scores'] if score is not None]:
            for key, setting in trial['settings'].items():
                panels.setdefault(key, []).append((setting, scores))
    varied = {key: points for key, points in panels.items() if len({str(x) for x, _ in points}) > 1}
    return plots.plot_points(varied, plots.metric_label(summary['score'])) if varied else None
