"""Pretrains or fine-tunes: --config=configs/X.py[:arg] --workdir=DIR [--config.a.b=value]."""

import argparse
import contextlib
import json
import logging
import pathlib
from typing import Any

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.train', description=__doc__)
    parser.add_argument('--config', required=True, help='a config file, with :arg if it takes one')
    parser.add_argument('--workdir', required=True, help='made if missing; a run in it is resumed')
    cli.add_processes(parser)
    flags, overrides = cli.parse(parser)
    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / 'config.json', '--workdir')

    from bert_jax.core import distributed

    with distributed.job(flags.coordinator, flags.processes, flags.process):
        return run(flags.config, workdir, overrides)


def run(spec: str, workdir: pathlib.Path, overrides: list[str]) -> int:
    """Trains the config `spec` in `workdir`; returns the exit status."""
    with contextlib.ExitStack() as stack:
        return _run(spec, workdir, overrides, stack)


def _run(spec: str, workdir: pathlib.Path, overrides: list[str], stack: contextlib.ExitStack) -> int:
    from bert_jax.core import distributed, partitioning, paths, runtime
    from bert_jax.evals.evaluator import Evaluator
    from bert_jax.train import experiment as experiment_lib
    from bert_jax.train import inputs, loop

    runtime.prepare_process()
    experiment = experiment_lib.read(spec, overrides)
    partitioner = partitioning.make(experiment.mesh)
    with distributed.lead_first():  # it trains a tokenizer and prepares rows if need be
        experiment, tokenizer, start = inputs.begin(experiment, workdir)
        loop.check(experiment, partitioner)
        if distributed.is_lead():
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(paths.held(workdir))
            experiment_lib.claim(workdir, experiment)
        task = experiment.make_task(tokenizer)
        data = inputs.RowsOf(task, experiment, tokenizer, workdir)
        data.prepare_all()
    if labels := getattr(experiment.task, 'labels', ()):
        logging.info(
            '%d classes: %s', len(labels), ', '.join(labels[:20]) + (' ...' if len(labels) > 20 else '')
        )
    c = experiment.train

    def make_evaluator(graph: Any) -> Evaluator | None:
        examples = data.validation(data.lengths[-1])
        if not len(examples.rows):
            logging.warning('there is nothing held out to evaluate on')
            return None
        evaluator = Evaluator(
            task, graph, examples, c.eval_batch_size, partitioner, c.seed, c.eval_rows, c.bins
        )
        logging.info('evaluating on %d rows', evaluator.rows)
        return evaluator

    about = {'config': experiment.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
    return loop.train(experiment, task, data.train, partitioner, workdir, about, start, make_evaluator)


if __name__ == '__main__':
    cli.run(main)
