"""The training loop of pretraining and fine-tuning."""

import collections
import contextlib
import functools
import logging
import math
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core import metrics
from bert_jax.core.cadence import Every, make_every
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.core.worker_pool import STOP_SIGNALS
from bert_jax.data.pipeline import Batches, MakeExample
from bert_jax.train import checkpoint as checkpoint_lib
from bert_jax.train import packing as packing_lib
from bert_jax.train import state as state_lib
from bert_jax.train.checkpoint import Checkpointer
from bert_jax.train.experiment import Experiment
from bert_jax.train.inputs import ReadParams
from bert_jax.train.monitor import Monitor, diverged
from bert_jax.train.phases import MakeEvaluator, Phase, Program, Programs, duration_units, make_phases

# Exit status of a run that was stopped by a signal after saving a checkpoint: "temporary failure, try again".
EXIT_STOPPED = os.EX_TEMPFAIL

# Returns the training rows of a length and a sampling exponent.
GetRows = Callable[[int, float], Sequence[np.ndarray]]


def train(
    experiment: Experiment,
    task: Any,
    get_rows: GetRows,
    partitioner: Partitioner,
    workdir: pathlib.Path,
    metadata: Mapping[str, Any],
    read_params: ReadParams | None,
    make_evaluator: MakeEvaluator,
    on_start: Callable[[int], None],
) -> int:
    """Train until the end of the run or until a signal to stop, resuming from the newest checkpoint in `workdir`.

    Args:
      experiment: complete config.
      task: task to train.
      get_rows: returns the training rows of a length and a sampling exponent.
      partitioner: mesh.
      workdir: working directory for metrics and checkpoints.
      metadata: description of the run to store in each checkpoint: `config` and `tokenizer`.
      read_params: reads pretrained parameters for a layout, which replace the random ones; None for random
        initialization.
      make_evaluator: creates the function that evaluates the parameters of a phase, from the config, the task and the
        layout of the phase; it may return None for no evaluation.
      on_start: called with the step at which the training starts or resumes, unless the run has finished.

    Returns:
      The exit status: 0, or `EXIT_STOPPED` after one of the `STOP_SIGNALS`.

    Raises:
      UserError: if training cannot continue, for example because the loss is not finite. Earlier checkpoints are kept.
    """
    c = experiment.train
    examples = len(get_rows(experiment.phases[0].length, 1.0))
    phases = make_phases(experiment, examples)
    total, units = phases[-1].stop, duration_units(phases, examples)
    programs = Programs(experiment, task, phases, units, partitioner)
    layout = programs.layout
    _log_summary(layout, partitioner, total)
    programs.log()
    checkpointer = Checkpointer(workdir, experiment.checkpoint, {**metadata, 'total_steps': total})
    state = checkpointer.restore(layout) or _create_state(layout, c.seed, read_params)
    if (start := int(state.step)) >= total:
        checkpointer.close()
        _log_final_scores(workdir)
        _log_checkpoints(workdir, total, checkpointer)
        return 0
    if start:
        logging.info('resuming at step %d of %d in %s', start, total, workdir)

    program = programs.make(_phase_of(phases, start + 1), make_evaluator)
    on_start(start)
    monitor = Monitor(task, experiment, layout, workdir, start, phases, partitioner.global_batch_factor)
    with contextlib.closing(monitor), record_signals() as signals:
        try:
            with contextlib.closing(checkpointer):  # which waits until the last checkpoint is on disk
                batches = _batches(phases, get_rows, programs, experiment, start, partitioner)
                is_due = _make_schedule(experiment, total, units)
                if program.evaluate and checkpointer.needs_scores:
                    _log_added_evaluations(is_due, start, experiment.checkpoint.best_metric)
                get_program = _program_of_step(program, phases, programs, make_evaluator, start)
                stopped_at = _run(
                    state, batches, get_program, partitioner, checkpointer, monitor, is_due, signals
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


def _phase_of(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase whose batch the update to `step` uses."""
    return next(phase for phase in phases if step <= phase.stop)


def _program_of_step(
    program: Program, phases: Sequence[Phase], programs: Programs, make_evaluator: MakeEvaluator, start: int
) -> Callable[[int], Program]:
    """Return a function of the step, which makes the program of a phase when the phase begins.

    Args:
      program: program of the phase in which the run starts or resumes.
      phases: phases of the run.
      programs: makes the program of a phase.
      make_evaluator: see `train`.
      start: step at which the run starts or resumes.
    """
    by_settings = {_phase_of(phases, start + 1).settings: program}

    def get_program(step: int) -> Program:
        phase = _phase_of(phases, step)
        if step == phase.start + 1 and len(phases) > 1:
            logging.info('step %s: a phase of %s begins', f'{phase.start:,}', phase.describe())
        if phase.settings not in by_settings:
            by_settings.clear()  # evaluators hold batches
            by_settings[phase.settings] = programs.make(phase, make_evaluator)
        return by_settings[phase.settings]

    return get_program


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


def _make_schedule(experiment: Experiment, total: int, units: Mapping[str, Any]) -> dict[str, Every]:
    """Return when to log, evaluate and save."""
    train = experiment.train
    durations = {'log': train.log_every, 'evaluate': train.eval_every, 'save': experiment.checkpoint.every}
    return {name: make_every(duration, total=total, **units) for name, duration in durations.items()}


def _log_added_evaluations(is_due: Mapping[str, Every], start: int, best_metric: str) -> None:
    """Say how many evaluations take place only because a checkpoint needs its score."""
    save = is_due['save']
    steps = range(start + 1, save.total)
    if added := sum(save(step) and not is_due['evaluate'](step) for step in steps):
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
    get_program: Callable[[int], Program],
    partitioner: Partitioner,
    checkpointer: Checkpointer,
    monitor: Monitor,
    is_due: Mapping[str, Every],
    signals: Sequence[int],
) -> int:
    """Train on the batches. Return the step at which a signal stopped the run, or 0 at its end.

    Metrics are fetched a step late, so that the device need not wait.
    """
    pending: tuple[int, Any, tuple[float, float]] | None = None  # step, metrics and work to report
    compiled: set[tuple[Any, ...]] = set()  # train steps and the shapes of their batches
    has_peers, stop_requested = jax.process_count() > 1, False
    for step, batch in monitor.time_batches(batches):
        config, step_fn, evaluate = get_program(step)
        shapes = (step_fn, *(array.shape for array in batch.values()))
        if has_peers:
            # All processes learn of a signal from the metrics, so that they stop at the same step.
            batch['stop'] = np.full(len(batch['valid']), bool(signals), np.float32)
        if not compiled:
            logging.info('compiling the train step')
        if shapes not in compiled:
            jax.block_until_ready(state.params)  # the time of the steps before is no compilation
        with contextlib.nullcontext() if shapes in compiled else monitor.overhead('compilation'):
            state, step_metrics = step_fn(state, partitioner.global_batch(batch))
        compiled.add(shapes)
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
            raise diverged('a parameter is not finite', step)
        scores: dict[str, Any] = {}
        if evaluate and needs_scores:
            with monitor.overhead('evaluation'):
                scores = evaluate(state.params)
                monitor.report_evaluation(step, scores)
            if not math.isfinite(scores['loss']):
                raise diverged(f'the evaluation loss is {scores["loss"]}', step)
        if saves:
            with monitor.overhead('checkpoints'):
                monitor.upload()  # so that the metrics of a resumed run have no gap
                checkpointer.save(state, scores, config)
        monitor.record_step(step)
        if is_stopping and step < is_due['save'].total:
            return step
    return 0


@jax.jit
def _all_finite(params: Mapping[str, jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_and, (jnp.isfinite(p).all() for p in jax.tree.leaves(params)))


def _batches(
    phases: Sequence[Phase],
    get_rows: GetRows,
    programs: Programs,
    experiment: Experiment,
    start: int,
    partitioner: Partitioner,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield (step, this process's rows of the batch) for each update after step `start`."""
    config, total = experiment.train, phases[-1].stop
    # Number of rows of each length that the phases so far have read.
    num_read: collections.Counter[int] = collections.Counter()
    for phase in phases:
        first_position = num_read[phase.length]
        num_read[phase.length] += (phase.stop - phase.start) * phase.batch_size
        if phase.stop <= start:
            continue
        task, data = programs.task(phase), experiment.in_phase(phase.settings).data
        rows, packing = get_rows(phase.length, getattr(data, 'sampling_exponent', 1.0)), None
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
            make_example_at=functools.partial(_make_example_at, task, phase.start, total),
        )
        first = max(start, phase.start)
        stream = batches.iterate(first - phase.start, phase.stop - phase.start, workers=config.workers)
        yield from enumerate(stream, first + 1)


def _make_example_at(task: Any, start: int, total: int, step: int) -> MakeExample:
    """Return the function that makes the examples of a batch.

    Args:
      task: task of the phase.
      start: first step of the phase.
      total: steps of the run.
      step: step of the batch, counted from the start of the phase.
    """
    return task.example_at((start + step) / total)


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
