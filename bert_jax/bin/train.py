"""Pretrain or fine-tune a model."""

import contextlib
import json
import logging
import pathlib
from typing import Any

from bert_jax.core import cli, paths
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
        '--workdir',
        required=True,
        help='working directory, also in a bucket such as gs://BUCKET/RUN; created if missing; a run in it is resumed',
    )
    parser.add_argument(
        '--verbose', action='store_true', help='log debug messages, such as the table of all parameters'
    )
    cli.add_process_flags(parser)
    flags, overrides = cli.parse_args(parser, read_sections)
    workdir = paths.make_path(flags.workdir)
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
    from bert_jax.core import distributed, partitioning, runtime
    from bert_jax.core.errors import UserError
    from bert_jax.evals.evaluator import Evaluator
    from bert_jax.train import experiment as experiment_lib
    from bert_jax.train import loop, record, setup
    from bert_jax.train.experiment import Experiment
    from bert_jax.train.state import Layout

    runtime.configure_process()
    experiment = experiment_lib.read(spec, overrides)
    experiment.check_splits()
    partitioner = partitioning.make(experiment.mesh)
    with distributed.lead_first():  # the lead process trains a missing tokenizer and prepares missing rows
        setup.check_before_tokenizer(workdir, experiment, partitioner)
        if distributed.is_lead():
            stack.enter_context(paths.lock_workdir(workdir))
        run = setup.set_up(spec, workdir, overrides, experiment, partitioner)
    experiment = run.experiment
    length = run.rows.lengths[-1]
    examples = run.rows.validation(length)  # their errors should not wait for a compilation
    best_metric = experiment.checkpoint.best_metric

    def make_evaluator(config: Experiment, task: Any, layout: Layout) -> Evaluator | None:
        if not len(examples.rows):
            if best_metric:
                raise UserError(
                    f'checkpoint.best_metric={best_metric!r} needs evaluation rows, but the data has none. '
                    'Hold out some text, or set checkpoint.best_metric="".'
                )
            logging.warning('The data has no evaluation rows, so the model is not evaluated.')
            return None
        evaluator = Evaluator(
            task,
            layout.graph,
            examples,
            partitioner,
            config.train,
            mixture=run.rows.mixture(length, getattr(config.data, 'sampling_exponent', 1.0)),
        )
        if best_metric:
            evaluator.check_score(best_metric, layout.shapes.params)
        logging.info('evaluating on %s rows', f'{evaluator.num_rows:,}')
        return evaluator

    def write_record(step: int) -> None:
        if distributed.is_lead():
            record.write(workdir, run.earlier_record, run.record, step)

    metadata = {'config': experiment.as_dict(), 'tokenizer': json.loads(run.tokenizer.to_json())}
    return loop.train(
        experiment,
        run.task,
        run.rows.train,
        partitioner,
        workdir,
        metadata,
        run.read_params,
        make_evaluator,
        write_record,
    )


if __name__ == '__main__':
    cli.run(main)
