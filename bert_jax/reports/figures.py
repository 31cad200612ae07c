"""Figures of paper tables and sweeps."""

import pathlib
from collections.abc import Sequence
from typing import Any

from bert_jax.experiments import runs
from bert_jax.experiments.jobs import Job
from bert_jax.experiments.sweeps import Settings
from bert_jax.experiments.tables import Table
from bert_jax.reports import plots


def of_table(table: Table, workdir: pathlib.Path) -> Any:
    """Plot a table's scores, and the published ones, against its x axis; None if the table has no x axis or no scores."""
    numbers = table.numbers(workdir)
    of_rows = any(row.x for row in table.rows)
    panels: dict[str, dict[str, list[tuple[float | str, list[float]]]]] = {}
    for row in table.rows:
        for column in table.columns:
            if (found := numbers[row.name, column.name]) and (row.x if of_rows else column.panel):
                panel = panels.setdefault(column.panel or column.name, {})
                label = (column.name if column.panel else '') if of_rows else row.name
                x = row.x if of_rows else column.x
                panel.setdefault(label, []).append((x, found))
                if (published := table.published.get(row.name, {}).get(column.name)) is not None:
                    panel.setdefault(f'{label}, published', []).append((x, [published]))
    return plots.amounts(panels, table.amount) if table.amount and panels else None


def of_sweep(sweep: dict[Job, Settings], lines: Sequence[Sequence[str]]) -> Any:
    """Plot the score of the finished runs against each setting that varies; None while there is none."""
    score = lines[0][-1]
    scores = {job: runs.score(job.place, score) for job in sweep if job.finished}
    panels: dict[str, list[tuple[Any, float]]] = {}
    for job, value in scores.items():
        for key, setting in sweep[job].items():
            if value is not None:
                panels.setdefault(key, []).append((setting, value))
    varied = {key: points for key, points in panels.items() if len({str(x) for x, _ in points}) > 1}
    return plots.scatter(varied, score) if varied else None
