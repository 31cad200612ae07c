"""Submit a training run to SLURM, and optionally a second job that evaluates each new checkpoint."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from bert_jax.core import cli
from bert_jax.train.settings import read_sections


def main() -> None:
    parser = cli.make_parser(
        'launch/slurm.py',
        __doc__,
        '--config=configs/pretrain/bert.py:base --workdir=/shared/bert-base '
        '--sbatch="--nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00"',
        '--config=configs/finetune/sst2.py --workdir=/shared/sst2 --eval --print --config.init.checkpoint=/shared/bert-base',
    )
    parser.add_argument('--config', required=True, help='config file, with :arg if it takes one')
    parser.add_argument(
        '--workdir', required=True, help='working directory, on a file system that all nodes share'
    )
    parser.add_argument(
        '--sbatch',
        default='',
        help='sbatch options, such as "--nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00"; '
        'each task is one process',
    )
    parser.add_argument(
        '--eval',
        action='store_true',
        help='also submit a second job that evaluates each new checkpoint (fine-tuning only)',
    )
    parser.add_argument('--eval_sbatch', default='--ntasks=1', help='sbatch options for the job of --eval')
    parser.add_argument(
        '--print', action='store_true', help='print the batch scripts without submitting them'
    )
    flags, overrides = cli.parse_args(parser, read_sections)

    from bert_jax.core.errors import UserError
    from bert_jax.experiments import slurm
    from bert_jax.experiments.jobs import Job, validate

    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / slurm.SCRIPT, '--workdir')
    training = Job(workdir, flags.config, tuple(overrides))
    jobs = [(training, cli.split_options(flags.sbatch, '--sbatch'))]
    if flags.eval:
        evaluation = training._replace(
            folder=workdir / 'eval', depends_on=workdir, checkpoint=str(workdir), watch=True
        )
        jobs.append((evaluation, cli.split_options(flags.eval_sbatch, '--eval_sbatch')))
    if flags.print:
        validate([training])
        print(*(slurm.script(job, options) for job, options in jobs), sep='\n', end='')
        return
    if change := training.read_change():  # as in the train command, which does not replace a run either
        raise UserError(
            f'{str(workdir)!r} contains another run: {change}. Choose another --workdir, or rename this one.'
        )
    ids = slurm.submit(jobs)
    for job, _ in jobs:
        job_id = ids.get(job.folder)
        state = f'job {job_id}' if job_id else 'already finished'
        print(f'{job.folder}: {state}, {job.folder / slurm.LOG.replace("%j", job_id or "*")}')


if __name__ == '__main__':
    cli.run(main)
