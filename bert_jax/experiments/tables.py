"""A paper's table: which runs its cells need, their scores beside the published ones, and how it is printed."""

import collections
import dataclasses
import hashlib
import itertools
import logging
import math
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from bert_jax.core import config as config_lib
from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.experiments import runs
from bert_jax.experiments.jobs import Job, reasons

PRETRAINING = 'pretraining'


@dataclasses.dataclass(frozen=True)
class Row:
    """A pretrained model.

    Attributes:
      name: as the table has it.
      config: of its pretraining; without one the row starts from `checkpoint`, or else the table's.
      settings: `a.b=value` for it; {workdir} stands for the folder of the table, {text} for what to train on.
      skip: columns that this row has no cell in, and why.
      also: `a.b=value` for the runs of a column that start from it.
      weights: what the runs take of it, see `experiment.InitConfig`.
      checkpoint: a pretrained or converted model, or {NAME} of the table's `checkpoints`.
      x: where it stands in the figure, if rows are amounts of something.
    """

    name: str
    config: str = ''
    settings: tuple[str, ...] = ()
    skip: Mapping[str, str] = dataclasses.field(default_factory=dict)
    also: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    weights: Literal['pretrained', 'body', 'random'] = 'pretrained'
    checkpoint: str = ''
    x: float = 0.0


@dataclasses.dataclass(frozen=True)
class Column:
    """What is done with a pretrained model.

    Attributes:
      name: as the table has it.
      config: of the fine-tuning; or, with `of`, of an evaluation: what else to score those runs on. A study of those
        runs, or of the pretrained model itself, is `bin/study_language.py` and the like.
      score: at its end.
      settings: `a.b=value`, or flags of the study.
      shown: 'percent' of a share, 'exp' of a loss (perplexity), or the score as it is.
      published: what the published column is of, if it is of something else.
      of: a column whose runs this one is about too, instead of fine-tunings of its own (no study, if there is a config);
        or 'pretraining'.
      reach: a row; the number is then at which step a run first scores as well as that row's runs at their best, in the
        mean; infinite if it never does. What is printed is the step by which half of the runs do.
      panel, x: a panel of the figure, in which the column stands at its x, an amount or a name; if rows are amounts,
        columns of one panel are drawn together.
    """

    name: str
    config: str = ''
    score: str = 'accuracy'
    settings: tuple[str, ...] = ()
    shown: Literal['', 'percent', 'exp'] = ''
    published: str = ''
    of: str = ''
    reach: str = ''
    panel: str = ''
    x: float | str = 0.0

    def number(self, score: float) -> float:
        if self.shown == 'exp':
            return math.exp(min(score, 700.0))
        return 100 * score if self.shown == 'percent' else score

    def text(self, numbers: Sequence[float]) -> str:
        """Mean ± standard deviation (n); with `reach` the step by which half of the runs have come so far."""
        if not numbers:
            return ''
        if self.reach:
            half = statistics.median_low(numbers)
            shown = f'{half:.0f}' if math.isfinite(half) else 'never'
            return f'{shown} ({sum(map(math.isfinite, numbers))} of {len(numbers)})'
        mean = statistics.fmean(numbers)
        digits = self.digits(mean)
        spread = f' ± {statistics.stdev(numbers):.{digits}f}' if len(numbers) > 1 else ''
        return f'{mean:.{digits}f}{spread} ({len(numbers)})'

    def digits(self, number: float) -> int:
        """After the point: one of percents and large numbers, more of a loss or a correlation."""
        return 1 if self.shown == 'percent' or abs(number) >= 10 else 2 if abs(number) >= 1 else 4


@dataclasses.dataclass(frozen=True)
class Table:
    """A table config.

    Attributes:
      title, about: what it is, and where it was published.
      rows, columns: of the table.
      published: numbers by row and column.
      text: what is pretrained on; it stands for {text} in the settings of rows.
      checkpoint: what rows start from that have no other.
      checkpoints: models that rows name, set by `--config.checkpoints.NAME=DIR`.
      seeds: so many runs of each cell, from 0; pretraining is repeated too.
      turned: whether it is printed with its rows side by side and its columns below one another.
      amount: of what `x` of the rows or of the columns is, with its unit; empty draws no figure.
      against: a row; of each other row it is said whether its difference from that one is more than seed noise.
    """

    title: str
    about: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    text: str = 'pydocs/text'
    checkpoint: str = ''
    checkpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: int = 1
    turned: bool = False
    amount: str = ''
    against: str = ''

    def __post_init__(self) -> None:
        within(self, 'table', 1, math.inf, 'seeds')
        rows, columns = [r.name for r in self.rows], [c.name for c in self.columns]
        used: list[Any] = [
            (self.published, rows),
            *((r.skip, columns) for r in self.rows),
            *((r.also, columns) for r in self.rows),
        ]
        used += [(numbers, columns) for numbers in self.published.values()]
        own = [c for c in self.columns if not c.of]
        trained = [c.name for c in own if not c.config.startswith('bin/')]
        used += [
            ([c.of], ['', PRETRAINING, *(trained if c.config else (k.name for k in own))])
            for c in self.columns
        ]
        used += [([name], ['', *rows]) for name in (self.against, *(c.reach for c in self.columns))]
        for names, known in used:
            for name in names:
                if name not in known:
                    raise UserError(f'The table has no {name!r}: {config_lib.nearest(name, known)}')
        for row in self.rows:
            if not row.config and not self._start(row):
                raise UserError(
                    f'The row {row.name!r} starts from a pretrained model: give --config.checkpoint=DIR, or the one of '
                    '--config.checkpoints that it names.'
                )
        for column in self.columns:
            if column.of == PRETRAINING and column.config:
                raise UserError(
                    f'The column {column.name!r} is of the pretraining and has no config of its own.'
                )
            if not (column.config or column.of) or (column.reach and not column.of):
                raise UserError(f'The column {column.name!r} needs a config, or another column to be of.')
        for numbers in self.published.values():
            for name, number in numbers.items():
                if not isinstance(number, int | float):
                    raise UserError(
                        f'What was published of {name!r} is {number!r}, which is no number: mend the config.'
                    )

    def jobs(self, workdir: pathlib.Path) -> list[Job]:
        """All runs: a seed's before the next seed's, and each pretraining before what starts from it."""
        found = [
            job for seed in range(self.seeds) for row in self.rows for job in self._jobs(row, workdir, seed)
        ]
        for place, times in collections.Counter(job.place for job in found).items():
            if times > 1:
                raise UserError(
                    f'Two cells of the table would have the folder {place}: rename a row or a column.'
                )
        return found

    def _jobs(self, row: Row, workdir: pathlib.Path, seed: int) -> list[Job]:
        def filled(settings: Sequence[str]) -> list[str]:
            return [s.replace('{workdir}', str(workdir)).replace('{text}', self.text) for s in settings]

        found, before = [], None
        if row.config:
            before = self._cell(workdir, row, Column('', of=PRETRAINING), seed)
            found.append(Job(before, row.config, (*filled(row.settings), f'train.seed={seed}')))
        start = before or self._start(row)
        for column in self.columns:
            if not column.config or {column.name, column.of} & {*row.skip}:
                continue
            own = filled([*column.settings, *row.also.get(column.name, ())])
            place = self._cell(workdir, row, column, seed)
            if column.of:
                trained = self._cell(workdir, row, self._column(column.of), seed)
                found.append(Job(place, column.config, tuple(own), trained, scores=str(trained)))
            elif column.config.startswith('bin/'):
                found.append(Job(place, column.config, tuple(own), before, scores=str(start)))
            else:
                own += [f'train.seed={seed}', f'init.checkpoint={start}', f'init.weights={row.weights}']
                found.append(Job(place, column.config, tuple(own), before))
        return found

    def _start(self, row: Row) -> str:
        named = re.fullmatch(r'\{(\w+)\}', row.checkpoint)
        if named and named[1] not in self.checkpoints:
            raise UserError(f'{row.checkpoint} is none of {", ".join(self.checkpoints)}: mend the config.')
        return self.checkpoints[named[1]] if named else row.checkpoint or self.checkpoint

    def _column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def _cell(self, workdir: pathlib.Path, row: Row, column: Column, seed: int) -> pathlib.Path:
        name = column.name if column.config else 'pretrain' if column.of == PRETRAINING else column.of
        return workdir / folder(name) / folder(row.name) / f'seed{seed}'

    def _finished(self, workdir: pathlib.Path) -> set[pathlib.Path]:
        return {job.place for job in self.jobs(workdir) if job.finished}

    def numbers(self, workdir: pathlib.Path) -> dict[tuple[str, str], list[float]]:
        """What the finished runs have scored, by row and column; runs with other settings do not count."""
        finished = self._finished(workdir)
        found = {}
        for column in self.columns:
            places = {
                row.name: [
                    p
                    for seed in range(self.seeds)
                    if (p := self._cell(workdir, row, column, seed)) in finished
                ]
                for row in self.rows
            }
            if column.reach:
                bests = [
                    max(values.values())
                    for p in places[column.reach]
                    if (values := runs.curve(p, column.score))
                ]
                goal = statistics.fmean(bests) if bests else math.inf
            for row in self.rows:
                numbers: list[float | None]
                if column.reach:
                    numbers = [_first(runs.curve(p, column.score), goal) for p in places[row.name]]
                else:
                    scores = [_score(p, column.score) for p in places[row.name]]
                    numbers = [None if s is None else column.number(s) for s in scores]
                found[row.name, column.name] = [n for n in numbers if n is not None]
        return found

    def by_row(self, workdir: pathlib.Path) -> dict[str, dict[str, list[float | None]]]:
        """`numbers`, one of each run, for JSON: None is never."""
        found: dict[str, dict[str, list[float | None]]] = {}
        for (row, column), numbers in self.numbers(workdir).items():
            found.setdefault(row, {})[column] = [n if math.isfinite(n) else None for n in numbers]
        return found

    def lines(self, workdir: pathlib.Path, failed: Mapping[pathlib.Path, str]) -> list[list[str]]:
        """The table as text, a head line first: own mean ± std (n), and where something was published for a column (or, if
        turned, a row) that number before it and by how much one's own is more after it."""
        numbers, why_failed = self.numbers(workdir), reasons(failed)
        finished = self._finished(workdir)
        known = {(row, column) for row, found in self.published.items() for column in found}

        def cell(row: Row, column: Column) -> tuple[str, str, str]:
            published = self.published.get(row.name, {}).get(column.name)
            own = numbers[row.name, column.name]
            places = [self._cell(workdir, row, column, seed) for seed in range(self.seeds)]
            gone = [failed[p] for p in places if p in failed]
            why = row.skip.get(column.name) or row.skip.get(column.of)
            if gone:
                why = f'failed [{why_failed.index(gone[0]) + 1}]'
            elif finished & {*places}:
                why = f'no score {column.score!r}'
            difference = ''
            if published is not None and own:
                difference = f'{statistics.fmean(own) - published:+.{column.digits(published)}f}'
            return (
                '' if published is None else f'{published:.4g}',
                column.text(own) or why or 'not run',
                difference,
            )

        down: Sequence[Any] = self.columns if self.turned else self.rows
        across: Sequence[Any] = self.rows if self.turned else self.columns
        out = [[''], *([x.name] for x in down)]
        for y in across:
            compared = any(y.name in pair for pair in known)
            of = f' ({y.published})' if getattr(y, 'published', '') else ''
            out[0] += [f'{y.name}: published{of}', 'own', 'difference'] if compared else [y.name]
            for line, x in zip(out[1:], down, strict=True):
                found = cell(y, x) if self.turned else cell(x, y)
                line += found if compared else found[1:2]
        return out

    def orders(self, workdir: pathlib.Path) -> list[str]:
        """For each column, whether the rows come in the published order: Spearman's rank correlation."""
        from scipy import stats

        numbers = self.numbers(workdir)
        found = []
        for column in self.columns:
            both = [
                (self.published[row.name][column.name], statistics.fmean(numbers[row.name, column.name]))
                for row in self.rows
                if column.name in self.published.get(row.name, {}) and numbers[row.name, column.name]
            ]
            if len(both) > 2:
                rank = float(stats.spearmanr(*zip(*both, strict=True)).statistic)
                found.append(
                    f'{column.name}: rank correlation with the published order {rank:+.2f} ({len(both)} rows)'
                )
        return found

    def differences(self, workdir: pathlib.Path) -> list[str]:
        """For each column, by how much each row differs from `against`, and whether by more than seed noise: Welch's t-test,
        or for columns with `reach`, where a run may never arrive, Mann and Whitney's test of ranks. Then what is left of
        all tests together (Holm 1979)."""
        from scipy import stats

        if not self.against:
            return []
        numbers, found, tests = self.numbers(workdir), [], dict[str, float]()
        for column in self.columns:
            base = numbers[self.against, column.name]
            for row in self.rows:
                own = numbers[row.name, column.name]
                if row.name == self.against or min(len(own), len(base)) < 2:
                    continue
                both = f'{row.name} {column.text(own)}, {self.against} {column.text(base)}'
                if not column.reach and len({*own}) == len({*base}) == 1:
                    found.append(f'{column.name}: {both}, no spread, so no test')
                    continue
                if column.reach:
                    p, test = stats.mannwhitneyu(own, base).pvalue, "Mann and Whitney's test"
                else:
                    sides = [
                        n for x in (own, base) for n in (statistics.fmean(x), statistics.stdev(x), len(x))
                    ]
                    p, test = stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue, "Welch's t-test"
                tests[f'{column.name} of {row.name}'] = float(p)
                found.append(f'{column.name}: {both}, p = {p:.2g} ({test})')
        if len(tests) > 1:
            beyond = _holm(tests)
            found.append(
                f'More than seed noise, of {len(tests)} tests together at 5 % (Holm): {"; ".join(beyond) or "none"}'
            )
        return found


def _holm(tests: Mapping[str, float], level: float = 0.05) -> list[str]:
    """Tests whose hypothesis is rejected at a level that holds for all of them together."""
    ranked = sorted(tests.items(), key=lambda test: test[1])
    kept = itertools.takewhile(lambda t: t[1][1] <= level / (len(ranked) - t[0]), enumerate(ranked))
    return [name for _, (name, _) in kept]


def _score(place: pathlib.Path, name: str) -> float | None:
    """The score of a run; None, with a warning, if it has none of this name."""
    try:
        return runs.score(place, name)
    except UserError as e:
        logging.warning('%s', e)
        return None


def _first(curve: Mapping[int, float], goal: float) -> float:
    """The first step at which a score is as high as `goal`; infinite if none is."""
    return next((float(step) for step, value in curve.items() if value >= goal), math.inf)


def folder(name: str) -> str:
    """A name as a folder."""
    return (
        re.sub('[^a-z0-9.]+', '_', name.lower()).strip('_.') or hashlib.sha256(name.encode()).hexdigest()[:8]
    )


def read(spec: str, overrides: Sequence[str] = ()) -> Table:
    """A table from a config file; `seeds=N` overrides.

    Raises:
      UserError: for unknown keys, or rows of one name.
    """
    config = config_lib.load(spec)
    defaults = {f.name: f.default for f in dataclasses.fields(Table) if isinstance(f.default, str | int)}
    config = ConfigDict({**defaults, **config})
    config_lib.override(config, overrides)
    given: dict[str, Any] = {**config}
    for key, cls in (('rows', Row), ('columns', Column)):
        made = [
            config_lib.section(cls, _plain(entry), f'{key}[{i}]')
            for i, entry in enumerate(given.get(key, ()))
        ]
        names = [folder(x.name) for x in made]
        if not made or len({*names}) < len(names):
            raise UserError(f'{spec!r} needs {key} with a name of its own each: mend the config.')
        given[key] = tuple(made)
    return config_lib.section(Table, _plain(given), 'table')


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, ConfigDict | dict) else value
