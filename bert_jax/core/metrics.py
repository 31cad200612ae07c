"""Exact means of metrics, metric files and the progress line of a run."""

import collections
import json
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp

from bert_jax.core import metric_writers
from bert_jax.core.paths import write_atomic

FILE = 'metrics.jsonl'
# Endings of the names of metrics of which a lower value is better.
_LOWER_IS_BETTER = ('loss', 'cross_entropy', 'squared_error', 'perplexity', 'bits_per_byte')


class Mean(NamedTuple):
    """Mean of a metric as a weighted sum and the sum of the weights; adding both over batches gives the exact mean."""

    total: jax.Array
    weight: jax.Array

    def value(self) -> Any:
        return self.total / jnp.maximum(self.weight, 1e-9)


def mean(values: jax.Array, weights: jax.Array) -> Mean:
    """Compute the weighted sum of `values` and the sum of `weights`, which broadcast to one shape."""
    weights = jnp.broadcast_to(weights, values.shape).astype(jnp.float32)
    return Mean((values.astype(jnp.float32) * weights).sum(), weights.sum())


def combine(parts: Iterable[Mapping[str, Mean]]) -> dict[str, float]:
    """Compute the exact mean of each metric over all parts, summed in double precision.

    Metrics whose total weight is 0 are left out.
    """
    totals: dict[str, float] = collections.defaultdict(float)
    weights: dict[str, float] = collections.defaultdict(float)
    for part in jax.device_get([dict(p) for p in parts]):
        for name, m in part.items():
            totals[name] += float(m.total)
            weights[name] += float(m.weight)
    return {name: total / weights[name] for name, total in totals.items() if weights[name]}


def is_lower_better(name: str) -> bool:
    """Return whether a lower value of the metric `name` is better, judged by the name alone.

    All comparisons of scores use this function. For the metric that selects the best checkpoint,
    `checkpoint.best_mode` takes precedence where it is set.
    """
    return name.partition('/')[0].endswith(_LOWER_IS_BETTER)


def format_count(n: float) -> str:
    """Format a count with a unit: 1234567 as '1.2M'."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if n >= size * 0.99995:
            return f'{n / size:.1f}{unit}'
    return f'{n:.0f}'


def format_scores(scores: Mapping[str, Any]) -> str:
    """Format the real-valued scores of an evaluation as one line."""
    return '  '.join(f'{name} {value:.4f}' for name, value in scores.items() if isinstance(value, float))


def format_duration(seconds: float) -> str:
    """Format seconds as '1:02:03' or '2:03'."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f'{hours}:{m:02}:{s:02}' if hours else f'{m}:{s:02}'


class Writer:
    """Writer of metrics to `metrics.jsonl` in a working directory, and to other writers.

    Existing lines of steps after `step` are removed first, because a resumed run repeats the steps that followed
    its last checkpoint.

    Args:
      folder: folder for the files.
      workdir: working directory of the run, which is `folder` unless it is in a bucket.
      step: step at which the run starts or resumes.
      writers: names of the other writers, see `metric_writers`.
      config: config of the run, for the other writers.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        workdir: pathlib.Path,
        step: int,
        writers: Sequence[str],
        config: Mapping[str, Any],
    ):
        self._path, last_step = folder / FILE, 0.0
        if self._path.exists():
            lines = self._path.read_bytes().decode(errors='replace').splitlines()
            valid = [(values['step'], line) for line in lines if (values := _parse_line(line))]
            last_step = max((line_step for line_step, _ in valid), default=0.0)
            write_atomic(self._path, ''.join(line + '\n' for line_step, line in valid if line_step <= step))
        self._file = self._path.open('a')
        self._others = metric_writers.Combined(writers, folder, workdir, step, int(last_step), config)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}  # JSON has no NaN
        self._file.write(json.dumps({'step': step, **finite}) + '\n')
        self._file.flush()
        self._others(step, values)

    def close(self) -> None:
        self._file.close()
        self._others.close()


def _parse_line(line: str) -> dict[str, float] | None:
    """Parse a line of `metrics.jsonl`, with NaN for each null; return None if the line is invalid."""
    try:
        values = json.loads(line)
        step, numbers = values['step'], [v for v in values.values() if v is not None]
    except (ValueError, RecursionError, KeyError, TypeError):  # of damaged lines
        return None
    if not all(isinstance(n, int | float) for n in numbers) or step is None or not 0 <= step < 2**63:
        return None
    return {k: math.nan if v is None else v for k, v in values.items()}


def read(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Read the valid lines of `metrics.jsonl` in order, with NaN for each null, which stands for a non-finite number."""
    lines = (workdir / FILE).read_bytes().decode(errors='replace').splitlines()
    return [values for line in lines if (values := _parse_line(line))]


# Values of a step that the progress line shows in a fixed place, or that are no measure of quality.
_NOT_MAIN = ('grad_norm', 'learning_rate', 'tokens_per_second', 'mfu')


class Progress:
    """Progress line of a run: step, loss, main metric, time left and speed.

    On a terminal, one line is updated in place. Otherwise, as in the log file of a job, a line is printed for the
    first and the last step and at most every `interval` seconds in between.

    Args:
      total: last step of the run.
      metric: metric to show next to the loss; empty takes the first one that is not a loss.
      stream: output stream; None is standard error.
      interval: seconds between two lines, if the stream is not a terminal.
      work: amount of work of the first updates of the run, by their number; the time left is proportional to it.
    """

    def __init__(
        self,
        total: int,
        metric: str = '',
        stream: TextIO | None = None,
        interval: float = 5.0,
        work: Callable[[int], float] = float,
    ):
        self._total, self._metric, self._stream, self._work = total, metric, stream or sys.stderr, work
        self._is_terminal = self._stream.isatty()
        self._interval = 0.1 if self._is_terminal else interval
        self._first: tuple[int, float] | None = None  # step and time of the first call
        self._last_time = -math.inf
        self._has_open_line = False
        self._handlers = [*logging.getLogger().handlers] if self._is_terminal else []
        for handler in self._handlers:
            handler.addFilter(self._clear_before_log)

    def __call__(self, step: int, values: Mapping[str, float]) -> bool:
        """Show the metrics of a step, unless the last line was shown too recently.

        Args:
          step: number of updates.
          values: metrics of the step, among them `loss`, `tokens_per_second` and `mfu`.

        Returns:
          Whether a line was printed that stays, as in a log file.
        """
        now = time.perf_counter()
        if step < self._total and now - self._last_time < self._interval:
            return False
        self._last_time = now
        line = self._format(step, values, now)
        if self._is_terminal:
            self._clear()
            print(line[: self._width() - 1], end='', file=self._stream, flush=True)
            self._has_open_line = True
        else:
            print(line, file=self._stream, flush=True)
        return not self._is_terminal

    def exclude(self, seconds: float) -> None:
        """Leave out time that does not recur, such as that of a compilation, when the time left is estimated."""
        if self._first:
            step, start = self._first
            self._first = step, start + seconds

    def time_left(self, step: int) -> float:
        """Estimate the seconds left after `step`; NaN before the second line."""
        if self._first is None or step <= self._first[0]:
            return math.nan
        first_step, first_time = self._first
        time_per_work = (time.perf_counter() - first_time) / (self._work(step) - self._work(first_step))
        return time_per_work * (self._work(self._total) - self._work(step))

    def print_line(self, text: str) -> None:
        """Print a line that stays, above the progress line."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End the progress line."""
        for handler in self._handlers:
            handler.removeFilter(self._clear_before_log)
        if self._has_open_line:
            print(file=self._stream, flush=True)
            self._has_open_line = False

    def _format(self, step: int, values: Mapping[str, float], now: float) -> str:
        candidates = [name for name in values if not is_lower_better(name) and name not in _NOT_MAIN]
        metric = self._metric if self._metric in values else next(iter(candidates), '')
        parts = [f'step {step:,}/{self._total:,}', f'loss {values["loss"]:.4f}']
        if metric and metric != 'loss':
            parts.append(f'{metric} {values[metric]:.4f}')
        if self._first is None:  # the time of the first step is mostly that of compilation
            self._first = step, now
            return '  '.join(parts)
        parts.append(f'{format_duration(self.time_left(step))} left')
        parts.append(f'{format_count(values["tokens_per_second"])} tokens/s')
        if math.isfinite(values['mfu']):
            parts.append(f'MFU {values["mfu"]:.1%}')
        return '  '.join(parts)

    def _width(self) -> int:
        """Return the number of columns of the terminal. A longer line would wrap and could not be updated in place."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80

    def _clear(self) -> None:
        if self._has_open_line:
            print('\r\033[K', end='', file=self._stream, flush=True)
            self._has_open_line = False

    def _clear_before_log(self, record: logging.LogRecord) -> bool:
        self._clear()
        return True
