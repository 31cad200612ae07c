"""Reproduce tables from papers: define the jobs, and print our scores next to the published ones."""

import collections
import dataclasses
import hashlib
import logging
import math
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from bert_jax.core import config as config_lib
from bert_jax.core.errors import UserError
from bert_jax.evals import language_model
from bert_jax.experiments import runs
from bert_jax.experiments.jobs import Job, distinct_reasons, find_unfinished
from bert_jax.train import experiment

PRETRAINING = 'pretraining'


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: one pretrained model.

    Attributes:
      name: name in the table.
      config: config of the pretraining run; empty for a row that is `checkpoint`.
      settings: config overrides `a.b=value` of the pretraining run; `{workdir}` is replaced by the folder of the table,
        `{text}` by the table's `text`.
      start: name of an earlier row, whose model the run of this row trains further: its checkpoint, or its run with the
        same seed. Needs `config`.
      skipped_columns: columns that are not computed for this row, each with the reason that its cell shows.
      column_settings: by column, additional config overrides for the jobs of this row.
      weights: which weights of the model fine-tuning starts from; see `experiment.InitConfig`.
      run: name of the row whose pretraining run this row uses, at `step`.
      step: step of the checkpoint of that run, which must be kept (`checkpoint.keep`).
      checkpoint: a pretrained or converted model, or `{NAME}` for one of the table's `checkpoints`; by default, the
        table's `checkpoint`.
      x: position on the x axis of the figure, a number or a name; if it is 0 in all rows, the columns are on the x axis.
      series: name of the line that connects this row with others in the figure, if the rows are on the x axis.
      baseline: name of the row that this row is tested against; empty takes the table's `baseline`.
    """

    name: str
    config: str = ''
    settings: tuple[str, ...] = ()
    start: str = ''
    skipped_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    column_settings: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    weights: Literal['pretrained', 'reinit_embeddings', 'random'] = 'pretrained'
    run: str = ''
    step: int = 0
    checkpoint: str = ''
    x: float | str = 0.0
    series: str = ''
    baseline: str = ''


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: one score of each model, from fine-tuning, an evaluation or a study.

    Attributes:
      name: name in the table.
      config: config of the fine-tuning runs; with `source_column`, the config with which to evaluate the
        fine-tuned models of that column. For a study, its command, such as `bin/study_language.py`; it studies those
        models or, without `source_column`, the pretrained ones. A config of `eval_lm` and `bin/eval_retrieval.py` evaluate
        the same models.
      score: name of the score; its value is taken from the last evaluation. With a `source_column` of training runs,
        'training_minutes' is the time that their steps took, without compilation, evaluation and other overhead.
      settings: config overrides `a.b=value`, or the flags of the study.
      format: 'percent' multiplies a fraction by 100, 'exp' turns a loss into a perplexity; empty leaves the
        score unchanged.
      published_name: data set of the published score, if it differs from `name`.
      source_column: another column whose runs this column uses: without `config` it shows another of their
        scores, with `config` it evaluates them on other data. 'pretraining' means the pretraining runs; with `config`,
        it evaluates the pretrained model of each row. Empty for a column that has its own runs.
      until_score_of: name of a row. The value of a run is then the first step at which it reaches the best
        score of that row (the mean over its runs), or infinity. The table shows the step at which half of the
        runs have reached it.
      target: value that the mean of each row must reach, which is tested; 0 for none.
      panel: title of the panel that shows this column in the figure. If empty, the column is not plotted or,
        if the rows are on the x axis, has its own panel.
      x: position on the x axis of that panel, a number or a name.
    """

    name: str
    config: str = ''
    score: str = 'accuracy'
    settings: tuple[str, ...] = ()
    format: Literal['', 'percent', 'exp'] = ''
    published_name: str = ''
    source_column: str = ''
    until_score_of: str = ''
    target: float = 0.0
    panel: str = ''
    x: float | str = 0.0

    @property
    def trains(self) -> bool:
        """Whether the column has its own training runs, and is not a study, an evaluation or a score of another column."""
        is_training = self.config and not self.source_column and not self.config.startswith('bin/')
        return bool(is_training) and not language_model.is_config(self.config)

    def convert(self, score: float) -> float:
        """Convert a score to the unit of the table."""
        if self.format == 'exp':
            return math.exp(min(score, 700.0))
        return 100 * score if self.format == 'percent' else score

    def cell(self, values: Sequence[float]) -> str:
        """Format values as 'mean ± standard deviation (n)'; with `until_score_of`, as 'median step (k of n)', where k runs reach it."""
        if not values:
            return ''
        if self.until_score_of:
            half = statistics.median_low(values)
            step = f'{half:.0f}' if math.isfinite(half) else 'never'
            return f'{step} ({sum(map(math.isfinite, values))} of {len(values)})'
        digits = self.digits(statistics.fmean(values))
        return f'{runs.mean_and_spread(values, digits)} ({len(values)})'

    def digits(self, value: float) -> int:
        """Number of decimals: 1 for percentages and values of at least 10, 2 for values of at least 1, otherwise 4."""
        return 1 if self.format == 'percent' or abs(value) >= 10 else 2 if abs(value) >= 1 else 4


@dataclasses.dataclass(frozen=True)
class Table:
    """The config of a table.

    Attributes:
      title: title, such as 'BERT, table 1: GLUE'.
      rows: the pretrained models.
      columns: the scores of each model.
      description: text below the title: which scores, and where the published ones come from.
      published: published scores, by row and column, in the unit of the table.
      text: corpus that replaces `{text}` in the settings of rows and columns.
      checkpoint: pretrained model of the rows that have neither `config` nor `checkpoint`.
      checkpoints: pretrained models that rows refer to as `{NAME}`; set by `--config.checkpoints.NAME=DIR`.
      seeds: number of runs of each cell, each from its own pretraining run if the row has one; seeds count from 0. A study
        of a fixed checkpoint runs only once.
      transposed: whether to print the rows as columns.
      x_label: label and unit of the x axis of the figure; empty draws no figure.
      baseline: name of the row that all other rows are tested against; empty for no tests.
    """

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    description: str = ''
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    text: str = 'pydocs/text'
    checkpoint: str = ''
    checkpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: int = 1
    transposed: bool = False
    x_label: str = ''
    baseline: str = ''

    def __post_init__(self) -> None:
        config_lib.check_range(self, 'table', 1, math.inf, 'seeds')
        self._check_names()
        for row in self.rows:
            if bool(row.run) != bool(row.step) or (row.run and row.config):
                raise UserError(
                    f'The row {row.name!r} needs both run and step, and no config, to use the run of another row. Set both, or '
                    'neither.'
                )
            if row.start and (not row.config or row.checkpoint):
                raise UserError(
                    f'The row {row.name!r} needs config, and no checkpoint, for a run that starts at {row.start!r}. Change them, or '
                    'remove start.'
                )
            if not (row.config or row.run or self._initial_checkpoint(row)):
                raise UserError(
                    f'The row {row.name!r} has no pretrained model. Pass --config.checkpoint=DIR, or set config or '
                    'checkpoint in the row.'
                )
        for column in self.columns:
            if not (column.config or column.source_column):
                raise UserError(f'The column {column.name!r} needs config or source_column. Set one of them.')
            if column.until_score_of and not column.source_column:
                raise UserError(
                    f'The column {column.name!r} has until_score_of={column.until_score_of!r} but no '
                    'source_column. Set source_column to the column whose training steps to count.'
                )
        for scores in self.published.values():
            for name, score in scores.items():
                if not isinstance(score, int | float):
                    raise UserError(
                        f'The published score {score!r} of the column {name!r} is not a number. Correct `published` in the config.'
                    )

    def _check_names(self) -> None:
        """Raise UserError if a field refers to a row or a column that does not exist."""
        rows, columns = [r.name for r in self.rows], [c.name for c in self.columns]
        references: list[tuple[Any, list[str]]] = [
            (self.published, rows),
            *((r.skipped_columns, columns) for r in self.rows),
            *((r.column_settings, columns) for r in self.rows),
            *((scores, columns) for scores in self.published.values()),
            *(([r.baseline], ['', *rows]) for r in self.rows),
            *(([r.run], ['', *(r.name for r in self.rows if r.config)]) for r in self.rows),
            *(([r.start], ['', *rows]) for r in self.rows),
            *(([name], ['', *rows]) for name in (self.baseline, *(c.until_score_of for c in self.columns))),
        ]
        for column in self.columns:
            sources = [c.name for c in self.columns if (c.trains if column.config else c.config)]
            references.append(([column.source_column], ['', PRETRAINING, *sources]))
        for names, known in references:
            for name in names:
                if name not in known:
                    choices = [*filter(None, known)]
                    raise UserError(
                        f'The table has no row or column {name!r}: {config_lib.did_you_mean(name, choices)}'
                    )
        runs_of = {r.name: r.run for r in self.rows}
        for i, row in enumerate(self.rows):
            for name in (row.start, runs_of.get(row.start)):
                if name in rows[i:]:
                    raise UserError(
                        f'The row {row.name!r} starts at {name!r}, which is no earlier row. Move that row before it.'
                    )

    def jobs(self, workdir: pathlib.Path) -> list[Job]:
        """All jobs of the table, seed by seed. Each job comes after the job that it depends on.

        Raises:
          UserError: if two cells have the same folder.
        """
        found = [
            job
            for seed in range(self.seeds)
            for row in sorted(self.rows, key=lambda row: bool(row.run))
            for job in self._row_jobs(row, workdir, seed)
        ]
        for folder, count in collections.Counter(job.folder for job in found).items():
            if count > 1:
                raise UserError(
                    f'Two cells of the table have the same folder {str(folder)!r}. Rename a row or a column.'
                )
        return found

    def _row_jobs(self, row: Row, workdir: pathlib.Path, seed: int) -> list[Job]:
        def expand(settings: Sequence[str]) -> tuple[str, ...]:
            return tuple(s.replace('{workdir}', str(workdir)).replace('{text}', self.text) for s in settings)

        found = []
        pretraining, checkpoint = self._pretrained(workdir, row, seed)
        if pretraining and row.config:
            settings, earlier = (*expand(row.settings), f'train.seed={seed}'), None
            if row.start:
                start = next(r for r in self.rows if r.name == row.start)
                earlier, initial = self._pretrained(workdir, start, seed)
                settings = (*settings, f'init.checkpoint={initial}')
            found.append(Job(pretraining, row.config, settings, earlier))
        for column in self.columns:
            if not column.config or {column.name, column.source_column} & {*row.skipped_columns}:
                continue
            if seed >= self._num_seeds(row, column):
                continue
            settings = expand([*column.settings, *row.column_settings.get(column.name, ())])
            folder = _folder(workdir, column.name, row, seed)
            if column.source_column not in ('', PRETRAINING):
                tuned = _folder(workdir, column.source_column, row, seed)
                found.append(Job(folder, column.config, settings, tuned, str(tuned)))
            elif not column.trains:
                found.append(Job(folder, column.config, settings, pretraining, checkpoint))
            else:
                init = (f'init.checkpoint={checkpoint}', f'init.weights={row.weights}')
                settings = (*settings, f'train.seed={seed}', *init)
                found.append(Job(folder, column.config, settings, pretraining))
        return found

    def _pretrained(self, workdir: pathlib.Path, row: Row, seed: int) -> tuple[pathlib.Path | None, str]:
        """The folder of the pretraining run of a row, None if it has none, and the row's checkpoint."""
        folder = self._pretraining_folder(workdir, row, seed)
        if folder and row.step:
            return folder, str(folder / 'checkpoints' / str(row.step))
        return folder, str(folder or self._initial_checkpoint(row))

    def _pretraining_folder(self, workdir: pathlib.Path, row: Row, seed: int) -> pathlib.Path | None:
        """The folder of the pretraining run of a row, its own or that of another row; None if it has neither."""
        source = next((r for r in self.rows if r.name == row.run), row)
        return _folder(workdir, 'pretrain', source, seed) if source.config else None

    def _initial_checkpoint(self, row: Row) -> str:
        """The checkpoint of a row that has no pretraining run; empty if none is set."""
        reference = re.fullmatch(r'\{(\w+)\}', row.checkpoint)
        if not reference:
            return row.checkpoint or self.checkpoint
        if reference[1] not in self.checkpoints:
            raise UserError(
                f'The row {row.name!r} refers to an unknown checkpoint {row.checkpoint}. The checkpoints of the table are: '
                f'{", ".join(self.checkpoints) or "none"}.'
            )
        return self.checkpoints[reference[1]]

    def _cell_folders(self, workdir: pathlib.Path, row: Row, column: Column) -> list[pathlib.Path]:
        """The folders of the jobs whose scores a cell shows, one for each seed."""
        if column.source_column == PRETRAINING and not column.config:
            found = (self._pretraining_folder(workdir, row, seed) for seed in range(self.seeds))
            return [folder for folder in found if folder and not row.step]
        name = column.name
        if not column.config:
            name = column.source_column
            column = next((c for c in self.columns if c.name == column.source_column), column)
        return [_folder(workdir, name, row, seed) for seed in range(self._num_seeds(row, column))]

    def _num_seeds(self, row: Row, column: Column) -> int:
        """The number of runs of a column with its own runs. A study of a checkpoint that all seeds share runs once."""
        uses_pretrained = not column.trains and column.source_column in ('', PRETRAINING)
        studies_checkpoint = uses_pretrained and not (row.config or row.run)
        return 1 if studies_checkpoint else self.seeds

    def _finished_folders(self, workdir: pathlib.Path) -> set[pathlib.Path]:
        found = self.jobs(workdir)
        return {job.folder for job in found} - {*find_unfinished(found)}

    def values(self, workdir: pathlib.Path) -> dict[tuple[str, str], list[float]]:
        """The values of finished runs whose config, data and checkpoint have not changed since, by (row, column)."""
        finished = self._finished_folders(workdir)
        found = {}
        for column in self.columns:
            folders = {
                row.name: [f for f in self._cell_folders(workdir, row, column) if f in finished]
                for row in self.rows
            }
            if column.until_score_of:
                lower_is_better = self._is_lower_better(column, workdir)
                curves_of_row = (runs.score_curve(f, column.score) for f in folders[column.until_score_of])
                finite = [[s for s in curve.values() if math.isfinite(s)] for curve in curves_of_row]
                bests = [(min if lower_is_better else max)(scores) for scores in finite if scores]
                target = statistics.fmean(bests) if bests else math.nan
            for row in self.rows:
                if column.until_score_of:
                    curves = [runs.score_curve(folder, column.score) for folder in folders[row.name]]
                    found[row.name, column.name] = [
                        runs.first_step(curve, target, lower_is_better) for curve in curves
                    ]
                else:
                    scores = [_final_score(folder, column.score) for folder in folders[row.name]]
                    found[row.name, column.name] = [column.convert(s) for s in scores if s is not None]
        return found

    def _is_lower_better(self, column: Column, workdir: pathlib.Path) -> bool:
        """Whether a lower score of a column is better, by the config of the runs that have the score."""
        folders = {folder for row in self.rows for folder in self._cell_folders(workdir, row, column)}
        job = next(job for job in self.jobs(workdir) if job.folder in folders)
        return runs.is_lower_better(column.score, experiment.read(job.config, job.settings).checkpoint)

    def loss_terms(self, workdir: pathlib.Path, column: Column, *rows: str) -> set[tuple[str, ...]]:
        """The different terms of the losses that a column shows for these rows; losses with other terms are not comparable."""
        folders = (
            f for row in self.rows if row.name in rows for f in self._cell_folders(workdir, row, column)
        )
        return {terms for f in folders if (terms := runs.loss_terms(runs.final_scores(f)))}

    def json_values(self, workdir: pathlib.Path) -> dict[str, dict[str, list[float | None]]]:
        """The result of `values`, nested by row and column for JSON; infinite values become None."""
        found: dict[str, dict[str, list[float | None]]] = {}
        for (row, column), values in self.values(workdir).items():
            found.setdefault(row, {})[column] = [v if math.isfinite(v) else None for v in values]
        return found

    def numbers(self, workdir: pathlib.Path) -> list[list[Any]]:
        """Tabulate the statistics of all cells that have runs, for a CSV file: one line per cell, in the unit of the table."""
        lines: list[list[Any]] = [['row', 'column', 'score', 'mean', 'std', 'median', 'n', 'published']]
        columns = {column.name: column for column in self.columns}
        for (row, column), values in self.values(workdir).items():
            found = runs.describe_values(values)
            if columns[column].until_score_of and values:
                found['median'] = statistics.median_low(values)  # as in the cells
            published = self.published.get(row, {}).get(column)
            lines.append([row, column, columns[column].score, *found.values(), published])
        return lines

    def lines(self, workdir: pathlib.Path, failures: Mapping[pathlib.Path, str]) -> list[list[str]]:
        """Format the table as lines of cells, the header first.

        A printed column that has published scores becomes three: published, ours, difference.

        Args:
          workdir: the folder of the table.
          failures: reasons, by folder, of the jobs that failed; the cells of these jobs show `failed [1]`.
        """
        values, reasons = self.values(workdir), distinct_reasons(failures)
        finished = self._finished_folders(workdir)
        published_names = {
            name for row, scores in self.published.items() for name in (row, *scores) if scores
        }

        def cell(row: Row, column: Column) -> tuple[str, str, str]:
            published = self.published.get(row.name, {}).get(column.name)
            ours = values[row.name, column.name]
            folders = self._cell_folders(workdir, row, column)
            failed = [failures[folder] for folder in folders if folder in failures]
            missing = row.skipped_columns.get(column.name) or row.skipped_columns.get(column.source_column)
            if failed:
                missing = f'failed [{reasons.index(failed[0]) + 1}]'
            elif finished & {*folders}:
                missing = f'no score {column.score!r}'
            difference = ''
            if published is not None and ours:
                difference = f'{statistics.fmean(ours) - published:+.{column.digits(published)}f}'
            return (
                '' if published is None else f'{published:.4g}',
                column.cell(ours) or missing or 'not run',
                difference,
            )

        down: Sequence[Any] = self.columns if self.transposed else self.rows
        across: Sequence[Any] = self.rows if self.transposed else self.columns
        out = [[''], *([x.name] for x in down)]
        for y in across:
            has_published = y.name in published_names
            note = f' ({y.published_name})' if getattr(y, 'published_name', '') else ''
            out[0] += [f'{y.name}: published{note}', 'ours', 'difference'] if has_published else [y.name]
            for line, x in zip(out[1:], down, strict=True):
                cells = cell(y, x) if self.transposed else cell(x, y)
                line += cells if has_published else cells[1:2]
        return out


def _final_score(folder: pathlib.Path, name: str) -> float | None:
    """The final score of a run; None if it has no scores, or none of this name (with a warning)."""
    try:
        return runs.final_score(folder, name)
    except UserError as e:
        logging.warning('%s', e)
        return None


def _folder(workdir: pathlib.Path, name: str, row: Row, seed: int) -> pathlib.Path:
    """Return the folder of a job of a row; `name` is the name of its column, or 'pretrain' for the pretraining run."""
    return workdir / folder_name(name) / folder_name(row.name) / f'seed{seed}'


def folder_name(name: str) -> str:
    """Convert the name of a row or column to a folder name."""
    return (
        re.sub('[^a-z0-9.]+', '_', name.lower()).strip('_.') or hashlib.sha256(name.encode()).hexdigest()[:8]
    )


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Load the config of a table, with defaults and overrides."""
    defaults = {f.name: f.default for f in dataclasses.fields(Table) if isinstance(f.default, str | int)}
    config = ConfigDict({**defaults, **config_lib.load(spec)})
    config_lib.override(config, overrides)
    return config


def read(spec: str, overrides: Sequence[str] = ()) -> Table:
    """Read a table from a config file, with overrides such as `seeds=3` or `checkpoint=DIR`.

    Raises:
      UserError: for unknown keys; if there are no rows or no columns; or if two of them have the same name.
    """
    values = config_lib.as_dict(load(spec, overrides))
    for key, cls in (('rows', Row), ('columns', Column)):
        entries = [
            config_lib.build_section(cls, entry, f'{key}[{i}]') for i, entry in enumerate(values.get(key, ()))
        ]
        names = [folder_name(entry.name) for entry in entries]
        if not entries or len({*names}) < len(names):
            raise UserError(
                f'{spec!r} has no {key}, or two of its {key} have the same name. Add {key}, or rename one.'
            )
        values[key] = tuple(entries)
    return config_lib.build_section(Table, values, 'table')
