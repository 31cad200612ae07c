"""The training loop: one for pretraining and fine-tuning."""

import contextlib
import dataclasses
import functools
import itertools
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

from bert_jax import optim
from bert_jax.core import distributed, metrics, runtime
from bert_jax.core.cadence import Every, duration
from bert_jax.core.errors import Diverged, UserError
from bert_jax.core.goodput import Ledger
from bert_jax.core.partitioning import Partitioner
from bert_jax.data.pipeline import Batches
from bert_jax.train import state as state_lib
from bert_jax.train.checkpoint import Checkpointer
from bert_jax.train.experiment import Experiment, TrainConfig
from bert_jax.train.step import jit_train_step

# "Temporary failure, try again": a run that was told to stop has saved and can be resumed.
STOPPED = os.EX_TEMPFAIL

Evaluate = Callable[[Mapping[str, jax.Array]], dict[str, Any]]
Rows = Callable[[int], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of the run with one row length: steps `start` to `stop`."""

    start: int
    stop: int
    length: int
    batch_size: int


def phases(experiment: Experiment, examples: int) -> list[Phase]:
    """The phases of a run: those of `train.phases`, or one of `train.steps`."""
    train = experiment.train
    if not train.phases:
        total = duration(train.steps, batch_size=train.batch_size, examples=examples)
        if not total:
            raise UserError(
                f'train.steps={train.steps!r} is no step at all: give a number of steps, or "3 epochs".'
            )
        return [Phase(0, total, experiment.data.length, train.batch_size)]
    stops = list(itertools.accumulate(steps for steps, _, _ in train.phases))
    starts = [0, *stops[:-1]]
    return [
        Phase(a, b, length, size) for a, b, (_, length, size) in zip(starts, stops, train.phases, strict=True)
    ]


def check(experiment: Experiment, partitioner: Partitioner) -> None:
    """Raises UserError for what can be known to fail before any data is read."""
    c = experiment.train
    shapes = [(length, size) for _, length, size in c.phases] or [(experiment.data.length, c.batch_size)]
    partitioner.check_batch(c.eval_batch_size, 'train.eval_batch_size')
    for length, size in shapes:
        check_shape(experiment, partitioner, length, size)


def check_shape(experiment: Experiment, partitioner: Partitioner, length: int, batch_size: int) -> None:
    """Raises UserError if batches of this shape cannot be trained on."""
    parts = experiment.train.accumulate
    partitioner.check_batch(batch_size)
    if batch_size % (parts * partitioner.batch_parts):
        raise UserError(
            f'A batch of {batch_size} does not divide into train.accumulate={parts} parts on this mesh.'
        )
    experiment.model.check_length(length)


def train(
    experiment: Experiment,
    task: Any,
    rows: Rows,
    partitioner: Partitioner,
    workdir: pathlib.Path,
    about: Mapping[str, Any],
    initial: Callable[[state_lib.Layout], dict[str, Any]] | None = None,
    make_evaluator: Callable[[Any], Evaluate | None] | None = None,
) -> int:
    """Trains to the end, or until told to stop; resumes from what `workdir` holds.

    Args:
      experiment: the complete config.
      task: its task.
      rows: training rows of a length.
      partitioner: the mesh.
      workdir: for metrics and checkpoints.
      about: what a checkpoint says of itself.
      initial: parameters to begin from, given the layout; they replace random ones.
      make_evaluator: from the model's structure, what is run every `train.eval_every` steps.

    Returns:
      The exit status: 0, or `STOPPED` after SIGTERM.

    Raises:
      UserError: among others for a loss that is not finite; the last checkpoint stays.
    """
    # Durations.
    c = experiment.train
    first = rows(c.phases[0][1] if c.phases else experiment.data.length)
    plan = phases(experiment, len(first))
    total = plan[-1].stop
    units = {'batch_size': plan[0].batch_size, 'examples': len(first)}
    due = _cadences(experiment, total, units)

    # The state, born sharded; from a checkpoint if there is one.
    body = [f'{experiment.model.name}/'] if getattr(task, 'frozen', False) else []
    tx = optim.make(
        dataclasses.replace(experiment.optim, frozen=(*experiment.optim.frozen, *body)), total, **units
    )
    make = functools.partial(task.module, experiment.model)
    layout = state_lib.layout(make, tx, partitioner)
    logging.info('%s', layout.table())
    checkpointer = Checkpointer(workdir, experiment.checkpoint, {**about, 'total_steps': total})
    state = checkpointer.restore(layout)
    if state is None:
        state = state_lib.create(make, tx, layout, c.seed)
        state = state if initial is None else state_lib.adopt(state, initial(layout), tx, layout)
    start = int(state.step)
    if start:
        logging.info('resuming at step %d of %d in %s', start, total, workdir)

    # The step, and what goes with it.
    model = experiment.model
    schedule = optim.schedule(experiment.optim, total, **units)
    dropout = model.dropout > 0 or model.attention_dropout > 0
    options = {'schedule': schedule, 'seed': c.seed, 'dropout': dropout, 'accumulate': c.accumulate}
    step_fn = jit_train_step(task, layout, partitioner, tx, **options)
    evaluate = make_evaluator(layout.graph) if make_evaluator else None
    writer = metrics.Writer(workdir, start) if distributed.is_lead() else None
    ledger = Ledger(workdir, start, total)
    meter = Meter(start, total, task, model, writer, ledger, partitioner.shares, c.profile)
    try:
        stream = _batches(plan, rows, task, c, start, partitioner)
        status = _run(state, stream, step_fn, partitioner, evaluate, checkpointer, meter, due)
        if status == STOPPED:
            meter.end('stopped')
        return status
    except BaseException as e:
        meter.end('failed')
        if isinstance(e, UserError):
            raise type(e)(f'{e} {_what_is_kept(checkpointer.latest, workdir)}') from e
        raise
    finally:
        checkpointer.close()
        meter.close()


def _cadences(experiment: Experiment, total: int, units: Mapping[str, int]) -> dict[str, Every]:
    c = experiment.train
    values = {'log': c.log_every, 'evaluate': c.eval_every, 'save': experiment.checkpoint.every}
    return {name: Every(duration(value, total=total, **units), total) for name, value in values.items()}


def _what_is_kept(last: int | None, workdir: pathlib.Path) -> str:
    return (
        'No checkpoint was saved yet.'
        if last is None
        else f'The checkpoint of step {last} in {workdir} is intact.'
    )


def _run(
    state: state_lib.State,
    stream: Iterator[tuple[int, dict[str, np.ndarray]]],
    step_fn: Any,
    partitioner: Partitioner,
    evaluate: Evaluate | None,
    checkpointer: Checkpointer,
    meter: 'Meter',
    due: Mapping[str, Every],
) -> int:
    """The loop. Metrics are fetched one step late, so that the device never waits for the host."""
    pending: tuple[int, Any, tuple[float, float]] | None = None
    compiled: set[tuple[int, ...]] = set()
    several, told = jax.process_count() > 1, False
    with StopOnSignal() as stop:
        for step, batch in meter.fed(stream):
            shape = batch['valid'].shape
            if several:  # what one was told all learn from the metrics, and stop at the same step
                batch['stop'] = np.full(shape[0], stop.requested, np.float32)
            with contextlib.nullcontext() if shape in compiled else meter.paused('compilation'):
                state, latest = step_fn(state, partitioner.global_batch(batch))
            compiled.add(shape)
            if pending:
                told |= meter.report(*pending, log=due['log'](pending[0]))
            pending = step, latest, meter.work(batch)
            stopping = told if several else stop.requested
            saves = due['save'](step) or stopping
            wanted = due['evaluate'](step) or (due['save'](step) and checkpointer.wants_scores)
            evaluates = evaluate is not None and wanted
            if not saves and not evaluates:
                continue
            told |= meter.report(*pending, log=due['log'](step))
            pending = None
            if not _finite(state.params):  # the loss before the last update was; such a state is never saved
                raise _diverged('a parameter is not finite', step)
            scores: dict[str, Any] = {}
            if evaluates and evaluate is not None:
                with meter.paused('evaluation'):
                    scores = evaluate(state.params)
                    meter.evaluation(step, scores)
                if not math.isfinite(scores['loss']):
                    raise _diverged(f'the loss of evaluation is {scores["loss"]}', step)
            if saves:
                with meter.paused('checkpoints'):
                    checkpointer.save(state, scores)
            meter.note(step)
            if stopping and step < due['save'].total:
                logging.info('stopped at step %d, saved; start again with the same --workdir to go on', step)
                return STOPPED
        if pending:
            meter.report(*pending, log=due['log'](pending[0]))
    return 0


@jax.jit
def _finite(params: Mapping[str, jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_and, (jnp.isfinite(p).all() for p in jax.tree.leaves(params)))


def _diverged(what: str, step: int) -> Diverged:
    return Diverged(
        f'At step {step} {what}: lower optim.learning_rate, lengthen optim.warmup, or look at the data.'
    )


def _batches(
    plan: Sequence[Phase], rows: Rows, task: Any, config: TrainConfig, start: int, partitioner: Partitioner
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(step after the update, batch) from step `start` to the end."""
    for phase in plan:
        if phase.stop <= start:
            continue
        batches = Batches(
            rows(phase.length),
            task.example,
            phase.batch_size,
            config.seed,
            bins=config.bins,
            local=partitioner.local_rows(phase.batch_size),
        )
        begin = max(start, phase.start)
        stream = batches.iterate(begin - phase.start, phase.stop - phase.start, workers=config.workers)
        yield from enumerate(stream, begin + 1)


class Meter:
    """Checks, times and reports what steps return."""

    def __init__(
        self,
        start: int,
        total: int,
        task: Any,
        model: Any,
        writer: metrics.Writer | None,
        ledger: Ledger,
        shares: int,
        profile: Sequence[int] = (),
    ):
        self._task, self._model, self._shares, self._start = task, model, shares, start
        self._writer, self._ledger, self._profile = writer, ledger, profile
        self._traces: pathlib.Path | None = None
        self._progress = metrics.Progress(start, total)
        self._peak = runtime.peak_flops()
        self._tokens = self._flops = 0.0
        self._since = time.perf_counter()
        self.note(start)

    def work(self, batch: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Real tokens of the global batch, and floating-point operations of forward and backward.

        One of several processes takes the share of the others to be like its own.
        """
        tokens, flops = float(np.count_nonzero(batch['valid'])), 3 * self._task.flops(self._model, batch)
        return tokens * self._shares, flops * self._shares

    def report(
        self, step: int, means: Mapping[str, metrics.Mean], work: tuple[float, float], log: bool
    ) -> bool:
        """Waits for the metrics of a step, refuses a loss that is not finite, logs if it is time.

        Returns:
          Whether one of several processes was told to stop.
        """
        self._tokens, self._flops = self._tokens + work[0], self._flops + work[1]
        values = metrics.combine([means])
        stop = values.pop('stop', 0.0) > 0
        for name in ('loss', 'grad_norm'):
            if not math.isfinite(values[name]):
                resumed = self._start and step == self._start + 1
                again = (
                    f', right after resuming: the checkpoint of step {self._start} is to blame'
                    if resumed
                    else ''
                )
                raise _diverged(f'the {name.replace("_", " ")} is {values[name]}{again}', step)
        if log:
            seconds = time.perf_counter() - self._since
            values |= {
                'tokens_per_second': self._tokens / seconds,
                'mfu': self._flops / seconds / self._peak,
            }
            if self._writer:
                self._writer(step, values)
                self._progress(step, values)
            self.note(step)
            self._since, self._tokens, self._flops = time.perf_counter(), 0.0, 0.0
        return stop

    def evaluation(self, step: int, scores: Mapping[str, Any]) -> None:
        if not self._writer:
            return
        numbers = {f'eval/{k}': v for k, v in scores.items() if isinstance(v, float)}
        self._writer(step, numbers)
        self._progress.say(
            f'step {step:,}  evaluation  ' + '  '.join(f'{k[5:]} {v:.4f}' for k, v in numbers.items())
        )

    @contextlib.contextmanager
    def paused(self, kind: str) -> Iterator[None]:
        """Keeps compilations, evaluations and saves out of the speed."""
        began = time.perf_counter()
        with self._ledger.lost(kind):
            yield
        self._since += time.perf_counter() - began

    def note(self, step: int) -> None:
        """Writes down where the time has gone."""
        if self._writer:
            self._ledger.write(step)

    def end(self, how: str) -> None:
        """Writes down that this is not the end of the run."""
        if self._writer:
            self._ledger.end(how)

    def fed(self, stream: Iterator[Any]) -> Iterator[Any]:
        """The stream; waiting for it is no step. Begins and ends the trace before the steps where that is due."""
        while True:
            with self._ledger.lost('data'):
                item = next(stream, None)
            if item is None:
                return
            self._trace(item[0])
            yield item

    def _trace(self, step: int) -> None:
        first, last = self._profile or (0, 0)
        if self._traces and step > last:
            jax.profiler.stop_trace()
            logging.info('the trace of steps %d to %d is in %s', first, last, self._traces)
            self._traces = None
        elif self._writer and step == first:
            self._traces = self._ledger.folder / 'profile'
            jax.profiler.start_trace(self._traces)

    def close(self) -> None:
        self._trace(sys.maxsize)
        self._ledger.close()
        if self._writer:
            self._writer.close()
            self._progress.close()


class StopOnSignal:
    """Remembers SIGTERM and SIGINT, so that the loop can finish its step and save."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> 'StopOnSignal':
        with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice
        self.requested = True
