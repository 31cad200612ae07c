"""Runs of a config that differ in some settings, as its `sweep(add)` says; the same command does what is missing.

python launch/sweep.py --config=configs/X.py[:arg] --workdir=DIR [--jobs=N | --slurm=OPTIONS | --print | --list] [--config.a.b=value]
"""

import argparse
import pathlib
import shlex
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python launch/sweep.py', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--config', required=True, help='a config file with sweep(add), and :arg if it takes one'
    )
    parser.add_argument('--workdir', required=True, help='a folder for all runs')
    parser.add_argument(
        '--jobs',
        type=int,
        default=0,
        help='so many runs at a time; the default is one here, and all on SLURM',
    )
    parser.add_argument(
        '--slurm', metavar='OPTIONS', help='submit them to SLURM as an array, with these options of sbatch'
    )
    parser.add_argument('--print', action='store_true', help='run nothing: print the command of each run')
    parser.add_argument('--list', action='store_true', help='run nothing: the table as it is')
    flags, overrides = cli.parse(parser)
    if flags.jobs < 0:
        parser.error('--jobs must not be negative')

    from bert_jax.experiments import jobs, slurm, sweeps
    from bert_jax.reports import export, figures

    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / 'sweep.md', '--workdir')
    sweep = sweeps.jobs(flags.config, workdir, overrides)
    if flags.print:
        jobs.check([*sweep])
        print(*(shlex.join(job.command) for job in sweep), sep='\n')
        return 0
    failed = {}
    if flags.slurm is not None:
        found = slurm.submit_array([*sweep], cli.words(flags.slurm, '--slurm'), workdir, flags.jobs)
        print(*(f'{place}: job {number}' for place, number in found.items()), sep='\n')
    elif not flags.list:
        failed = jobs.run([*sweep], workdir, flags.jobs or 1)
    table = sweeps.lines(sweep, failed)
    print(cli.table(table))
    if any(job.place.exists() for job in sweep):
        text = f'# {flags.config}\n\n{export.markdown(table)}'
        export.write(workdir, 'sweep', text, table, figures.of_sweep(sweep, table))
    return jobs.report(failed)


if __name__ == '__main__':
    cli.run(main)
