"""Scoring checkpoints from outside a run: what the eval binaries do."""

import argparse
import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from bert_jax import tasks
from bert_jax.core import cli, distributed, partitioning, paths, runtime
from bert_jax.core.errors import UserError
from bert_jax.evals.evaluator import Evaluator
from bert_jax.train import checkpoint, load
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.load import Trained


class Scorer:
    """Scores checkpoints of a downstream task on the data of a config.

    Args:
      spec: the task's config; it says which data, in what batches. The model, the tokenizer and
        the names of the classes come from the checkpoint.
      overrides: `a.b=value`.
      task: the name of the task that this binary scores; empty scores any.

    Raises:
      UserError: if the config is of another task.
    """

    def __init__(self, spec: str, overrides: Sequence[str], task: str = ''):
        self._experiment = experiment_lib.read(spec, overrides)
        self._given = {override.partition('=')[0] for override in overrides}
        if task and self._experiment.task.name != task:
            raise UserError(
                f'{spec!r} is a config of the task {self._experiment.task.name!r}; this binary scores {task!r}.'
            )
        self._partitioner = partitioning.make(self._experiment.mesh)
        self._evaluator: Evaluator | None = None
        self._made_for: Any = None
        self.describe: Any = None

    def __call__(self, path: pathlib.Path) -> dict[str, Any]:
        """Scores of the newest checkpoint below `path`, with what they are scores of."""
        trained, evaluator = self.evaluator(path)
        ours = self._experiment
        return {
            'checkpoint': str(path),
            'step': trained.step,
            'source': ours.data.source,
            'split': ours.data.eval_split,
            'rows': evaluator.rows,
            'labels': list(getattr(trained.experiment.task, 'labels', ())),
            'scores': evaluator(trained.params),
        }

    def evaluator(self, path: pathlib.Path) -> tuple[Trained, Evaluator]:
        """The newest checkpoint below `path`, and what scores its parameters on the data of the config."""
        trained = load.read(path, self._partitioner)
        ours = self._experiment
        if trained.experiment.task.name != ours.task.name:
            raise UserError(
                f'{str(path)!r} was trained on the task {trained.experiment.task.name!r}, not {ours.task.name!r}: '
                'give the --workdir of a fine-tuning.'
            )
        made_for = trained.experiment, trained.tokenizer.fingerprint
        if self._evaluator is None or made_for != self._made_for:
            own = {
                k: v
                for k, v in vars(trained.experiment.task).items()
                if k in tasks.OF_A_CHECKPOINT and v != ()
            }
            for name, value in own.items():
                if f'task.{name}' in self._given and getattr(ours.task, name) != value:
                    raise UserError(
                        f'{str(path)!r} was trained with task.{name}={value!r}: leave it out here.'
                    )
            read = dataclasses.replace(
                trained.experiment, task=dataclasses.replace(ours.task, **own), data=ours.data
            )
            task = read.make_task(trained.tokenizer)
            c = ours.train
            self._evaluator = Evaluator(
                task,
                trained.graph,
                task.eval_examples(),
                c.eval_batch_size,
                self._partitioner,
                c.seed,
                c.eval_rows,
                c.bins,
                write=True,
            )
            self._made_for, self.describe = made_for, task.describe
        return trained, self._evaluator


def watch(workdir: pathlib.Path, poll: float, timeout: float) -> Iterator[pathlib.Path]:
    """Yields each new checkpoint of a running job, the newest first if several came, to the last.

    Ends when the job's last step was yielded, or after `timeout` seconds without a new one.
    """
    seen, since = -1, time.monotonic()
    while True:
        found = [p for p in checkpoint.steps(workdir) if int(p.name) > seen]
        if found:
            seen, since = int(found[-1].name), time.monotonic()
            total = checkpoint.read_about(found[-1])[1]['total_steps']
            yield found[-1]
            if seen >= total:
                return
        elif time.monotonic() - since > timeout:
            logging.warning('no new checkpoint in %s for %.0f seconds: stopped watching', workdir, timeout)
            return
        else:
            time.sleep(poll)


def run(task: str, flags: argparse.Namespace, overrides: Sequence[str]) -> int:
    """What the eval binary of a downstream task does with the flags of `cli.eval_parser`; returns its exit status."""
    return follow(lambda: Scorer(flags.config, overrides, task), flags)


def follow(make: Callable[[], Any], flags: argparse.Namespace) -> int:
    """Scores one checkpoint or, with --watch, each of a job; `make` gives a `Scorer` or what is called as one."""
    out, path = pathlib.Path(flags.out), pathlib.Path(flags.checkpoint)
    cli.check_output(out, '--out')
    with distributed.job(flags.coordinator, flags.processes, flags.process):
        return _follow(make, flags, path, out)


def _follow(make: Callable[[], Any], flags: argparse.Namespace, path: pathlib.Path, out: pathlib.Path) -> int:
    runtime.prepare_process()
    if flags.watch and jax.process_count() > 1:
        raise UserError('--watch is for one process: several may see another newest checkpoint each.')
    scorer = make()
    result = None
    for step in watch(path, flags.poll, flags.timeout) if flags.watch else [path]:
        result = scorer(step)
        if not distributed.is_lead():
            continue
        print(
            f'{path}, step {result["step"]:,}, {" ".join([result["source"], result["split"]]).strip()}, {result["rows"]:,} rows'
        )
        print(scorer.describe(result['scores']), flush=True)
        paths.write(out, json.dumps(result, indent=2) + '\n')
    whole = result and (not flags.watch or result['step'] >= checkpoint.read_about(path)[1]['total_steps'])
    return 0 if whole else 1
