"""Checks, speed, metrics and progress of a training run."""

import contextlib
import functools
import logging
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import buckets, distributed, goodput, metrics, runtime
from bert_jax.core.errors import Diverged
from bert_jax.train import flops
from bert_jax.train import state as state_lib
from bert_jax.train.experiment import Experiment
from bert_jax.train.phases import Phase, tokens_until


def diverged(reason: str, step: int) -> Diverged:
    """Return the error of a run whose loss, gradients or parameters are not finite."""
    return Diverged(
        f'Training diverged at step {step}: {reason}. '
        'Lower optim.learning_rate, lengthen optim.warmup, or inspect the data.'
    )


class Monitor:
    """Monitor of a run: checks the metrics of its steps, measures speed and overhead, and writes metrics and progress.

    Args:
      task: task, which counts the floating-point operations of a batch.
      experiment: config of the run.
      layout: layout of its state.
      workdir: working directory of the run.
      start: step at which this process starts or resumes.
      phases: phases of the run.
      global_batch_factor: size of the global batch divided by the number of rows in this process.
    """

    def __init__(
        self,
        task: Any,
        experiment: Experiment,
        layout: state_lib.Layout,
        workdir: pathlib.Path,
        start: int,
        phases: Sequence[Phase],
        global_batch_factor: int,
    ):
        self._task, self._model, self._layout, self._start = task, experiment.model, layout, start
        # Processes other than the lead report nothing.
        is_lead = distributed.is_lead()
        self._workdir = workdir
        self._mirror = buckets.Mirror(workdir, (metrics.FILE, goodput.FILE)) if is_lead else None
        folder = self._mirror.folder if self._mirror else workdir
        writers, config = experiment.train.writers, experiment.as_dict()
        self._writer = metrics.Writer(folder, workdir, start, writers, config) if is_lead else None
        total, tokens = phases[-1].stop, functools.partial(tokens_until, phases)
        self._progress = metrics.Progress(total, experiment.checkpoint.best_metric, work=tokens)
        self._ledger = goodput.Ledger(folder, start, total)
        self._global_batch_factor, self._flops_ratio = global_batch_factor, 0.0
        self._profile_steps = experiment.train.profile_steps
        self._trace_folder: pathlib.Path | None = None
        self._peak = runtime.peak_flops()
        self._speed: dict[str, float] = {}  # at the last line of metrics
        self._tokens = self._flops = 0.0  # since then
        self._since, self._has_evaluated = time.perf_counter(), False
        self.record_step(start)

    def count_work(self, batch: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Count the tokens of a global batch without padding, and the floating-point operations of training on it.

        Both passes count, but the backward pass only as far as it is needed, see `flops.training_ratio`.
        With several processes, this process assumes that the rows of the others are like its own.
        """
        if not self._flops_ratio:  # all batches have nearly the same
            self._flops_ratio = flops.training_ratio(self._task, self._model, self._layout, batch)
        tokens = self._task.count_tokens(batch)
        work = self._flops_ratio * self._task.flops(self._model, batch)
        return tokens * self._global_batch_factor, work * self._global_batch_factor

    def report(
        self, step: int, means: Mapping[str, metrics.Mean], work: tuple[float, float], log: bool
    ) -> bool:
        """Wait for the metrics of a step, check that they are finite, and show them.

        Args:
          step: number of updates.
          means: metrics of the step.
          work: result of `count_work` for its batch.
          log: whether to write the metrics to files.

        Returns:
          Whether any process of the job has received a signal to stop.

        Raises:
          Diverged: if loss or gradient norm are not finite.
        """
        self._tokens, self._flops = self._tokens + work[0], self._flops + work[1]
        values = metrics.combine([means])
        stop_requested = values.pop('stop', 0.0) > 0
        for name in ('loss', 'grad_norm'):
            if not math.isfinite(values[name]):
                reason = f'the {name.replace("_", " ")} is {values[name]}'
                if self._start and step == self._start + 1:
                    reason += f' right after resuming, so the checkpoint of step {self._start} is the cause'
                raise diverged(reason, step)
        seconds = time.perf_counter() - self._since
        speed = {'tokens_per_second': self._tokens / seconds, 'mfu': self._flops / seconds / self._peak}
        if log:
            if self._writer:
                self._writer(step, values | speed)
            self.record_step(step)
            self._since, self._tokens, self._flops, self._speed = time.perf_counter(), 0.0, 0.0, speed
        if self._writer and self._progress(step, values | (self._speed or speed)):
            self.record_step(step)
        return stop_requested

    def report_evaluation(self, step: int, scores: Mapping[str, Any]) -> None:
        """Write and show the scores of an evaluation."""
        if not self._writer:
            return
        numbers = {f'eval/{name}': value for name, value in scores.items() if isinstance(value, float)}
        self._writer(step, numbers)
        self._progress.print_line(f'step {step:,}  evaluation  {metrics.format_scores(scores)}')

    @contextlib.contextmanager
    def overhead(self, category: str) -> Iterator[None]:
        """Count the time spent in the `with` block as overhead, and exclude it from the speed."""
        start = time.perf_counter()
        with self._ledger.overhead(category):
            yield
        seconds = time.perf_counter() - start
        self._since += seconds
        # The first evaluation includes the compilation of its step.
        if category == 'compilation' or (category == 'evaluation' and not self._has_evaluated):
            self._progress.exclude(seconds)
        self._has_evaluated |= category == 'evaluation'

    def record_step(self, step: int) -> None:
        """Record in `progress.json` that the run has reached `step`."""
        if self._writer:
            self._ledger.write(step, left=self._progress.time_left(step))

    def upload(self) -> None:
        """Upload the metrics of a run whose working directory is in a bucket."""
        if self._mirror:
            self._mirror.upload()

    def record_end(self, reason: str) -> None:
        """Record in `progress.json` why the run ended before its last step."""
        if self._writer:
            self._ledger.record_end(reason)

    def time_batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches; count the wait for each as overhead, and start or stop the profiler before its step."""
        while True:
            with self._ledger.overhead('data'):
                item = next(batches, None)
            if item is None:
                return
            self._profile(item[0])
            yield item

    def _profile(self, step: int) -> None:
        first, last = self._profile_steps or (0, 0)
        if self._trace_folder and step > last:
            jax.profiler.stop_trace()
            logging.info('wrote the trace of steps %d to %d to %s', first, last, self._workdir / 'profile')
            self._trace_folder = None
        elif self._writer and step == first:
            self._trace_folder = self._ledger.folder / 'profile'
            jax.profiler.start_trace(self._trace_folder)

    def close(self) -> None:
        """Stop the profiler and close all files."""
        self._profile(sys.maxsize)
        self._ledger.close()
        self._progress.close()
        if self._writer:
            self._writer.close()
        if self._mirror:
            self._mirror.close()
