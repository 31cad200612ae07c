"""Submits a training to SLURM, and beside it an evaluation job that scores the newest checkpoint whenever there is one.

python launch/slurm.py --config=configs/X.py[:arg] --workdir=DIR [--sbatch='--nodes=2 ...'] [--eval] [--print] [--config.a.b=value]
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python launch/slurm.py', description=__doc__.splitlines()[0])
    parser.add_argument('--config', required=True, help='a config file, with :arg if it takes one')
    parser.add_argument('--workdir', required=True, help='of the run, on a file system that all nodes see')
    parser.add_argument(
        '--sbatch',
        default='',
        help='options of sbatch, such as "--nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00"; '
        'each task is a process',
    )
    parser.add_argument(
        '--eval', action='store_true', help='score each checkpoint of a fine-tuning in a second job'
    )
    parser.add_argument('--eval_sbatch', default='--ntasks=1', help='options of sbatch for that one')
    parser.add_argument('--print', action='store_true', help='submit nothing: print the batch scripts')
    flags, overrides = cli.parse(parser)

    from bert_jax.experiments import slurm
    from bert_jax.experiments.jobs import Job, check

    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / slurm.SCRIPT, '--workdir')
    run = Job(workdir, flags.config, tuple(overrides))
    jobs = [(run, cli.words(flags.sbatch, '--sbatch'))]
    if flags.eval:
        scores = run._replace(place=workdir / 'eval', after=workdir, scores=str(workdir), watches=True)
        jobs.append((scores, cli.words(flags.eval_sbatch, '--eval_sbatch')))
    if flags.print:
        check([run])
        print(*(slurm.script(job, options) for job, options in jobs), sep='\n', end='')
        return 0
    found = slurm.submit(jobs)
    for job, _ in jobs:
        state = f'job {found[job.place]}' if job.place in found else 'done before'
        print(f'{job.place}: {state}, {job.place / slurm.LOG.replace("%j", found.get(job.place, "*"))}')
    return 0


if __name__ == '__main__':
    cli.run(main)
