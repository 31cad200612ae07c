"""Score checkpoints of finished or running jobs, for the evaluation commands."""

import argparse
import dataclasses
import functools
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from bert_jax import tasks
from bert_jax.core import cli, distributed, partitioning, paths, runtime
from bert_jax.core import config as config_lib
from bert_jax.core.errors import UserError
from bert_jax.data import records as records_lib
from bert_jax.data.records import Record
from bert_jax.evals.evaluator import Evaluator
from bert_jax.train import checkpoint, load
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.load import TrainedModel


class Scorer:
    """Score checkpoints of a downstream task on the data of a config.

    Args:
      spec: config file that sets the data and the batches. Model, tokenizer and class names come from the checkpoint.
      overrides: `a.b=value` changes to the config.
      task: name that the config's task must have; empty accepts any task.

    Attributes:
      format_scores: the task's function that formats scores; None before a checkpoint is loaded.

    Raises:
      UserError: if the config is for another task.
    """

    def __init__(self, spec: str, overrides: Sequence[str], task: str = ''):
        self._experiment = experiment_lib.read(spec, overrides)
        self._overridden = {override.partition('=')[0] for override in overrides}
        if task and self._experiment.task.name != task:
            actual = self._experiment.task.name
            raise UserError(
                f'{spec!r} is a config for the task {actual!r}, but this command scores {task!r}. Set --config to a config '
                f'for {task!r}.'
            )
        self._partitioner = partitioning.make(self._experiment.mesh)
        self._evaluator: Evaluator | None = None
        self._evaluator_key: Any = None
        self.format_scores: Any = None

    def __call__(self, path: pathlib.Path) -> dict[str, Any]:
        """Return the scores of the newest checkpoint in `path`, with its step and a description of the data."""
        trained, evaluator = self.load_evaluator(path)
        data = self._experiment.data
        return {
            'checkpoint': str(path),
            'step': trained.step,
            'source': data.source,
            'split': records_lib.used_split(data.source, data.eval_split),
            'rows': evaluator.num_rows,
            'labels': list(getattr(trained.experiment.task, 'labels', ())),
            'config': config_lib.as_dict(data),
            'scores': evaluator(trained.params),
        }

    @functools.cached_property
    def records(self) -> Sequence[Record]:
        """The records to score, read on first use; raises UserError if there are none, or one cannot be read."""
        return self._experiment.data.read(self._experiment.data.eval_split)

    def load_evaluator(self, path: pathlib.Path) -> tuple[TrainedModel, Evaluator]:
        """Load the newest checkpoint in `path`, and make an evaluator for it on the data of the config.

        The evaluator is reused while consecutive checkpoints have the same config and tokenizer.
        """
        trained = load.read(path, self._partitioner)
        experiment = self._experiment
        if trained.experiment.task.name != experiment.task.name:
            raise UserError(
                f'{str(path)!r} was trained on the task {trained.experiment.task.name!r}, not '
                f'{experiment.task.name!r}. Set --checkpoint to the --workdir of a run of this task.'
            )
        key = trained.experiment, trained.tokenizer.fingerprint
        if self._evaluator is None or key != self._evaluator_key:
            task = self._make_task(path, trained)
            examples = task.make_labeled_examples(self.records)
            self._evaluator = Evaluator(
                task, trained.graph, examples, self._partitioner, experiment.train, generate=True
            )
            self._evaluator_key, self.format_scores = key, task.format_scores
            self._log_differences(trained.experiment.data)
        return trained, self._evaluator

    def _log_differences(self, trained: Any) -> None:
        """Log the settings of rows that differ from those of the training."""
        for name in ('length', 'stride', 'max_question_length', 'target_length'):
            before, now = getattr(trained, name, None), getattr(self._experiment.data, name, None)
            if before is not None and now is not None and before != now:
                logging.info('data.%s is %s here, and was %s in training', name, now, before)

    def _make_task(self, path: pathlib.Path, trained: TrainedModel) -> Any:
        """Make the task from the config, except for `CHECKPOINT_FIELDS`, which come from the checkpoint."""
        config, saved = self._experiment.task, vars(trained.experiment.task)
        inherited = {k: saved[k] for k in tasks.CHECKPOINT_FIELDS if saved.get(k, ()) != ()}
        load.check_checkpoint_fields(path, trained.experiment.task, config, self._overridden)
        merged = dataclasses.replace(
            trained.experiment, task=dataclasses.replace(config, **inherited), data=self._experiment.data
        )
        merged.check_length(merged.data.length)
        return merged.make_task(trained.tokenizer)


def watch_checkpoints(workdir: pathlib.Path, poll: float, timeout: float) -> Iterator[pathlib.Path]:
    """Yield each new checkpoint of a running job; only the newest if several were saved in the meantime.

    The iterator ends after the job's last step, or when no checkpoint was saved for `timeout` seconds.

    Args:
      workdir: working directory of the job.
      poll: seconds between checks for a new checkpoint.
      timeout: maximum number of seconds to wait for a new checkpoint.
    """
    last_step, last_time = -1, time.monotonic()
    while True:
        new = [p for p in checkpoint.list_steps(workdir) if int(p.name) > last_step]
        if new:
            last_step, last_time = int(new[-1].name), time.monotonic()
            total = checkpoint.read_metadata(workdir)[1]['total_steps']
            yield new[-1]
            if last_step >= total:
                return
        elif time.monotonic() - last_time > timeout:
            logging.warning('No new checkpoint in %s for %.0f seconds. Stopped watching.', workdir, timeout)
            return
        else:
            time.sleep(poll)


def score_checkpoints(make_scorer: Callable[[], Any], flags: argparse.Namespace) -> int:
    """Score one checkpoint or, with --watch, each new one of a training run.

    The scores are written to --out and printed.

    Args:
      make_scorer: function that returns a `Scorer`, called after the processes have connected.
      flags: flags of `cli.eval_parser`.

    Returns:
      Exit status: 0 if the checkpoint or, with --watch, the run's last checkpoint was scored.
    """
    out, path = paths.make_path(flags.out), paths.make_path(flags.checkpoint)
    cli.check_output(out, '--out')
    with distributed.join_job(flags.coordinator, flags.processes, flags.process):
        runtime.configure_process()
        if flags.watch and jax.process_count() > 1:
            raise UserError(
                '--watch supports only one process, since several could find different checkpoints. Start one process.'
            )
        scorer = make_scorer()
        result = None
        for step in watch_checkpoints(path, flags.poll, flags.timeout) if flags.watch else [path]:
            try:
                result = scorer(step)
            except UserError:
                if not flags.watch or step.exists():
                    raise
                logging.warning('%s was deleted while it was read; waiting for a newer checkpoint', step)
                continue
            if distributed.is_lead():
                data = records_lib.describe_source(result['source'], result['split'])
                paths.write_atomic(out, json.dumps(result, indent=2) + '\n')
                print(f'{path}, step {result["step"]:,}, {data}, {result["rows"]:,} rows')
                print(scorer.format_scores(result['scores']), flush=True)
        if result is None:
            return 1
        if not flags.watch:
            return 0
        return 0 if result['step'] >= checkpoint.read_metadata(path)[1]['total_steps'] else 1
