"""Pretrain or fine-tune a model."""

import contextlib
import json
import logging
import pathlib
from typing import Any

from bert_jax.core import cli
from bert_jax.train.settings import read_sections


def main() -> int:
    parser = cli.make_parser(
        'train',
        __doc__,
        '--config=configs/pretrain/cpu.py --workdir=runs/english --config.data.sources="novels_en.txt.gz,wiki_articles"',
        '--config=configs/finetune/sst2.py --workdir=runs/sst2 --config.init.checkpoint=runs/english',
    )
    parser.add_argument('--config', required=True, help='config file, with :arg if it takes an argument')
    parser.add_argument(
        '--workdir', required=True, help='working directory, created if missing; a run in it is resumed'
    )
    parser.add_argument(
        '--verbose', action='store_true', help='log debug messages, such as the table of all parameters'
    )
    cli.add_process_flags(parser)
    flags, overrides = cli.parse_args(parser, read_sections)
    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / 'config.json', '--workdir')
    if flags.verbose:
        logging.getLogger().setLevel(logging.DEBUG)

    from bert_jax.core import distributed, worker_pool

    worker_pool.start_resource_tracker()
    with distributed.join_job(flags.coordinator, flags.processes, flags.process):
        return run(flags.config, workdir, overrides)


def run(spec: str, workdir: pathlib.Path, overrides: list[str]) -> int:
    """Train the config `spec` in `workdir`; return the exit status."""
    with contextlib.ExitStack() as stack:
        return _run(spec, workdir, overrides, stack)


def _run(spec: str, workdir: pathlib.Path, overrides: list[str], stack: contextlib.ExitStack) -> int:
    from bert_jax.core import distributed, partitioning, paths, runtime
    from bert_jax.evals.evaluator import Evaluator
    from bert_jax.train import convert, inputs, loop
    from bert_jax.train import experiment as experiment_lib

    runtime.configure_process()
    experiment = experiment_lib.read(spec, overrides)
    experiment.check_splits()
    partitioner = partitioning.make(experiment.mesh)
    with distributed.lead_first():  # the lead process trains a missing tokenizer and prepares missing rows
        if not experiment.init.checkpoint:  # a checkpoint would replace some of these settings
            # The tokenizer completes the sections model and task. Check all others before the tokenizer is trained.
            settings = {k: v for k, v in experiment.as_dict().items() if k not in ('model', 'task')}
            experiment_lib.check_config(workdir, settings)
        experiment, tokenizer, read_params = inputs.resolve(experiment, workdir)
        loop.check_experiment(experiment, partitioner)
        if distributed.is_lead():
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(paths.lock_workdir(workdir))
            experiment_lib.write_or_check_config(workdir, experiment)
            if not experiment.init.checkpoint:
                convert.log_export_limits(experiment, tokenizer)
        task = experiment.make_task(tokenizer)
        rows = inputs.TaskRows(task, experiment, tokenizer, workdir)
        rows.prepare_all()
    examples = rows.validation(rows.lengths[-1])  # an error in them should not wait for the first compilation
    if labels := getattr(experiment.task, 'labels', ()):
        names = ', '.join(labels[:20]) + (' ...' if len(labels) > 20 else '')
        logging.info('%d classes: %s', len(labels), names)

    def make_evaluator(graph: Any) -> Evaluator | None:
        if not len(examples.rows):
            logging.warning('The data has no evaluation rows, so the model is not evaluated.')
            return None
        evaluator = Evaluator(task, graph, examples, partitioner, experiment.train)
        logging.info('evaluating on %s rows', f'{evaluator.num_rows:,}')
        return evaluator

    metadata = {'config': experiment.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
    return loop.train(
        experiment, task, rows.train, partitioner, workdir, metadata, read_params, make_evaluator
    )


if __name__ == '__main__':
    cli.run(main)
