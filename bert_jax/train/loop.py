"""The training loop of pretraining and fine-tuning."""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core import buckets, distributed, goodput, metrics, runtime
from bert_jax.core.cadence import Every, duration_to_steps
from bert_jax.core.errors import Diverged, UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.core.worker_pool import STOP_SIGNALS
from bert_jax.data.pipeline import Batches
from bert_jax.optim import OptimConfig
from bert_jax.train import checkpoint as checkpoint_lib
from bert_jax.train import flops
from bert_jax.train import packing as packing_lib
from bert_jax.train import state as state_lib
from bert_jax.train.checkpoint import Checkpointer
from bert_jax.train.experiment import Experiment, TrainConfig
from bert_jax.train.inputs import ReadParams
from bert_jax.train.step import make_train_step

# Exit status of a run that was stopped by a signal after saving a checkpoint: "temporary failure, try again".
EXIT_STOPPED = os.EX_TEMPFAIL

Evaluate = Callable[[Mapping[str, jax.Array]], dict[str, Any]]
GetRows = Callable[[int], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """Part of a run, from step `start` to step `stop`, with one row length and batch size."""

    start: int
    stop: int
    length: int
    batch_size: int


def make_phases(experiment: Experiment, examples: int) -> list[Phase]:
    """Compute the phases of a run, see `Experiment.phases`.

    Args:
      experiment: config of the run.
      examples: number of training examples, for durations in epochs.
    """
    phases, start = [], 0
    for duration, length, batch_size in experiment.phases:
        steps = duration_to_steps(duration, batch_size=batch_size, examples=examples)
        phases.append(Phase(start, start + steps, length, batch_size))
        start += steps
    return phases


def optim_config(experiment: Experiment, task: Any) -> OptimConfig:
    """Return the optimizer of a run, with the parameters that its task does not train among the frozen ones."""
    frozen_encoder = [f'{experiment.model.name}/'] if getattr(task, 'freezes_encoder', False) else []
    return dataclasses.replace(experiment.optim, frozen=(*experiment.optim.frozen, *frozen_encoder))


def train(
    experiment: Experiment,
    task: Any,
    get_rows: GetRows,
    partitioner: Partitioner,
    workdir: pathlib.Path,
    metadata: Mapping[str, Any],
    read_params: ReadParams | None,
    make_evaluator: Callable[[state_lib.Layout], Evaluate | None],
    on_start: Callable[[int], None],
) -> int:
    """Train until the end of the run or until a signal to stop, resuming from the newest checkpoint in `workdir`.

    Args:
      experiment: complete config.
      task: task to train.
      get_rows: returns the training rows of a length.
      partitioner: mesh.
      workdir: working directory for metrics and checkpoints.
      metadata: description of the run to store in each checkpoint: `config` and `tokenizer`.
      read_params: reads pretrained parameters for a layout, which replace the random ones; None for random
        initialization.
      make_evaluator: creates, from the layout of the state, the function that evaluates its parameters; it may return
        None for no evaluation.
      on_start: called with the step at which the training starts or resumes, unless the run has finished.

    Returns:
      The exit status: 0, or `EXIT_STOPPED` after one of the `STOP_SIGNALS`.

    Raises:
      UserError: if training cannot continue, for example because the loss is not finite. Earlier checkpoints are kept.
    """
    c = experiment.train
    first_rows = get_rows(experiment.phases[0][1])
    phases = make_phases(experiment, len(first_rows))
    total = phases[-1].stop
    units = {'batch_size': phases[0].batch_size, 'examples': len(first_rows)}

    optimizer = optim_config(experiment, task)
    layout, step_fn = make_train_step(
        task, experiment.model, optimizer, total, partitioner, c.seed, c.accumulation_steps, c.prng, **units
    )
    _log_summary(layout, partitioner, total)
    checkpointer = Checkpointer(workdir, experiment.checkpoint, {**metadata, 'total_steps': total})
    state = checkpointer.restore(layout) or _create_state(layout, c.seed, read_params)
    if (start := int(state.step)) >= total:
        checkpointer.close()
        _log_final_scores(workdir)
        _log_checkpoints(workdir, total, checkpointer)
        return 0
    if start:
        logging.info('resuming at step %d of %d in %s', start, total, workdir)

    evaluate = make_evaluator(layout)
    on_start(start)
    monitor = Monitor(task, experiment, layout, workdir, start, total, partitioner.global_batch_factor)
    with contextlib.closing(monitor), record_signals() as signals:
        try:
            with contextlib.closing(checkpointer):  # which waits until the last checkpoint is on disk
                batches = _batches(phases, get_rows, task, c, start, partitioner)
                is_due = _make_schedule(experiment, total, units)
                if evaluate and checkpointer.needs_scores:
                    _log_added_evaluations(is_due, start, experiment.checkpoint.best_metric)
                stopped_at = _run(
                    state, batches, step_fn, partitioner, evaluate, checkpointer, monitor, is_due, signals
                )
            if not stopped_at:
                _log_checkpoints(workdir, total, checkpointer)
                return 0
            logging.info(
                'stopped at step %d and saved a checkpoint; run the same command to resume', stopped_at
            )
            monitor.record_end('stopped')
            return EXIT_STOPPED
        except BaseException as e:
            monitor.record_end('failed')
            if isinstance(e, UserError):
                raise type(e)(f'{e} {_describe_kept(workdir)}'.rstrip()) from e
            raise


def _create_state(layout: state_lib.Layout, seed: int, read_params: ReadParams | None) -> state_lib.State:
    state = state_lib.create(layout, seed)
    return state_lib.replace_params(state, read_params(layout), layout) if read_params else state


def _log_final_scores(workdir: pathlib.Path) -> None:
    """Log the scores of a finished run, and where they are."""
    _, metadata = checkpoint_lib.read_metadata(workdir)
    logging.info('the run in %s has finished all its %s steps', workdir, f'{metadata["step"]:,}')
    if scores := metrics.format_scores(metadata['scores']):
        logging.info('%s  (in %s)', scores, workdir / 'metrics.jsonl')


def _log_checkpoints(workdir: pathlib.Path, last: int, checkpointer: Checkpointer) -> None:
    """Log where the checkpoint of the last step is, and the one with the best score if there is one."""
    folder, best = workdir / checkpoint_lib.FOLDER, checkpointer.best_step
    note = '' if best is None else f', best {checkpointer.best_metric}: {folder / str(best)}'
    logging.info('checkpoint: %s%s', folder / str(last), note)


def _make_schedule(experiment: Experiment, total: int, units: Mapping[str, int]) -> dict[str, Every]:
    """Return when to log, evaluate and save."""
    train = experiment.train
    durations = {'log': train.log_every, 'evaluate': train.eval_every, 'save': experiment.checkpoint.every}
    return {
        name: Every(duration_to_steps(duration, total=total, **units), total)
        for name, duration in durations.items()
    }


def _log_added_evaluations(is_due: Mapping[str, Every], start: int, best_metric: str) -> None:
    """Say how many evaluations take place only because a checkpoint needs its score."""
    steps = range(start + 1, is_due['save'].total)
    if added := sum(is_due['save'](step) and not is_due['evaluate'](step) for step in steps):
        logging.info(
            'evaluations for checkpoint.best_metric=%s in addition to those of train.eval_every: %d',
            best_metric,
            added,
        )


def _describe_kept(workdir: pathlib.Path) -> str:
    """Say which checkpoint a failed run can be resumed from."""
    try:
        steps = checkpoint_lib.list_steps(workdir)
    except Exception:  # a bucket may be out of reach
        return ''
    if steps:
        return f'The checkpoint of step {steps[-1].name} in {workdir} is intact.'
    return 'No checkpoint was saved yet.'


def _log_summary(layout: state_lib.Layout, partitioner: Partitioner, total: int) -> None:
    shape = ' '.join(f'{axis}={size}' for axis, size in partitioner.mesh.shape.items())
    count = f'{layout.num_trained_params:,}'
    if layout.num_trained_params < layout.num_params:
        count += f' of {layout.num_params:,}'
    logging.info('training %s parameters for %s steps on mesh %s', count, f'{total:,}', shape)
    logging.debug('%s', layout.format_parameters())


def _run(
    state: state_lib.State,
    batches: Iterator[tuple[int, dict[str, np.ndarray]]],
    step_fn: Any,
    partitioner: Partitioner,
    evaluate: Evaluate | None,
    checkpointer: Checkpointer,
    monitor: 'Monitor',
    is_due: Mapping[str, Every],
    signals: Sequence[int],
) -> int:
    """Train on the batches. Return the step at which a signal stopped the run, or 0 at its end.

    Metrics are fetched a step late, so that the device need not wait.
    """
    pending: tuple[int, Any, tuple[float, float]] | None = None  # step, metrics and work to report
    compiled: set[tuple[int, ...]] = set()
    has_peers, stop_requested = jax.process_count() > 1, False
    for step, batch in monitor.time_batches(batches):
        shape = batch['valid'].shape
        if has_peers:
            # All processes learn of a signal from the metrics, so that they stop at the same step.
            batch['stop'] = np.full(shape[0], bool(signals), np.float32)
        if not compiled:
            logging.info('compiling the train step')
        with contextlib.nullcontext() if shape in compiled else monitor.overhead('compilation'):
            state, step_metrics = step_fn(state, partitioner.global_batch(batch))
        compiled.add(shape)
        if pending:
            stop_requested |= monitor.report(*pending, log=is_due['log'](pending[0]))
        pending = step, step_metrics, monitor.count_work(batch)
        is_stopping = stop_requested if has_peers else bool(signals)
        saves = is_due['save'](step) or is_stopping
        needs_scores = is_due['evaluate'](step) or (is_due['save'](step) and checkpointer.needs_scores)
        if not saves and not (evaluate and needs_scores):
            continue
        stop_requested |= monitor.report(*pending, log=is_due['log'](step))
        pending = None
        if not _all_finite(state.params):  # the loss is that before the update, so it does not show this
            raise _diverged('a parameter is not finite', step)
        scores: dict[str, Any] = {}
        if evaluate and needs_scores:
            with monitor.overhead('evaluation'):
                scores = evaluate(state.params)
                monitor.report_evaluation(step, scores)
            if not math.isfinite(scores['loss']):
                raise _diverged(f'the evaluation loss is {scores["loss"]}', step)
        if saves:
            with monitor.overhead('checkpoints'):
                monitor.upload()  # so that the metrics of a resumed run have no gap
                checkpointer.save(state, scores)
        monitor.record_step(step)
        if is_stopping and step < is_due['save'].total:
            return step
    return 0


@jax.jit
def _all_finite(params: Mapping[str, jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_and, (jnp.isfinite(p).all() for p in jax.tree.leaves(params)))


def _diverged(reason: str, step: int) -> Diverged:
    return Diverged(
        f'Training diverged at step {step}: {reason}. '
        'Lower optim.learning_rate, lengthen optim.warmup, or inspect the data.'
    )


def _batches(
    phases: Sequence[Phase],
    get_rows: GetRows,
    task: Any,
    config: TrainConfig,
    start: int,
    partitioner: Partitioner,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield (step, this process's rows of the batch) for each update after step `start`."""
    # Number of rows of each length that the phases so far have read.
    num_read: collections.Counter[int] = collections.Counter()
    for phase in phases:
        first_position = num_read[phase.length]
        num_read[phase.length] += (phase.stop - phase.start) * phase.batch_size
        if phase.stop <= start:
            continue
        rows, packing = get_rows(phase.length), None
        if packing_lib.is_on(config, task, partitioner):
            row_multiple = partitioner.num_batch_shards * config.accumulation_steps
            packing = packing_lib.make(task, rows, phase.batch_size, row_multiple, config)
            logging.info('packing %s', packing.describe())
        batches = Batches(
            rows,
            task.example,
            phase.batch_size,
            config.seed,
            length_buckets=config.length_buckets,
            packing=packing,
            local_rows=partitioner.local_rows(packing.num_rows if packing else phase.batch_size),
            first_position=first_position,
        )
        first = max(start, phase.start)
        stream = batches.iterate(first - phase.start, phase.stop - phase.start, workers=config.workers)
        yield from enumerate(stream, first + 1)


class Monitor:
    """Monitor of a run: checks the metrics of its steps, measures speed and overhead, and writes metrics and progress.

    Args:
      task: task, which counts the floating-point operations of a batch.
      experiment: config of the run.
      layout: layout of its state.
      workdir: working directory of the run.
      start: step at which this process starts or resumes.
      total: last step of the run.
      global_batch_factor: size of the global batch divided by the number of rows in this process.
    """

    def __init__(
        self,
        task: Any,
        experiment: Experiment,
        layout: state_lib.Layout,
        workdir: pathlib.Path,
        start: int,
        total: int,
        global_batch_factor: int,
    ):
        self._task, self._model, self._layout, self._start = task, experiment.model, layout, start
        # Processes other than the lead report nothing.
        is_lead = distributed.is_lead()
        self._workdir = workdir
        self._mirror = buckets.Mirror(workdir, (metrics.FILE, goodput.FILE)) if is_lead else None
        folder = self._mirror.folder if self._mirror else workdir
        self._writer = metrics.Writer(folder, start) if is_lead else None
        self._progress = metrics.Progress(total, experiment.checkpoint.best_metric)
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
                raise _diverged(reason, step)
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
            self._ledger.write(step)

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


@contextlib.contextmanager
def record_signals() -> Iterator[list[int]]:
    """Record the `STOP_SIGNALS` instead of handling them, so that the loop can finish its step and save.

    A second Ctrl-C raises KeyboardInterrupt. A signal that this process ignores, such as SIGHUP under `nohup`, is still
    ignored.

    Yields:
      The numbers of the signals received so far.
    """
    received: list[int] = []

    def record(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    handlers: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # only the main thread may set signal handlers
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, record)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
