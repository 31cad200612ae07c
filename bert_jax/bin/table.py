"""Runs what a paper's table needs, and prints it: --config=configs/tables/X.py --workdir=DIR [--jobs=N] [--list] [--slurm=OPTIONS] [--config.seeds=N]."""

import argparse
import pathlib
from collections.abc import Sequence

from bert_jax.core import cli, paths


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.table', description=__doc__)
    parser.add_argument('--config', required=True, help='the config of the table, with :arg if it takes one')
    parser.add_argument('--workdir', required=True, help='a folder for all runs; the same command goes on')
    parser.add_argument('--jobs', type=int, default=1, help='so many runs at a time')
    parser.add_argument(
        '--list',
        action='store_true',
        help='run nothing: list the runs that are missing, and the table as it is',
    )
    parser.add_argument(
        '--slurm',
        metavar='OPTIONS',
        help='submit what is missing to SLURM instead, with these options of sbatch; --list shows the table later',
    )
    flags, overrides = cli.parse(parser, argv)
    if flags.jobs < 1:
        parser.error('--jobs must be at least 1')
    if flags.slurm is not None and flags.jobs > 1:
        parser.error('--jobs is for runs here: on SLURM they run as it has room')

    from bert_jax.experiments import jobs, slurm, tables
    from bert_jax.reports import export, figures, page

    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / 'table.md', '--workdir')
    table = tables.read(flags.config, overrides)
    todo = table.jobs(workdir)
    failed = {}
    if flags.list:
        missing = [job for job in todo if not job.finished]
        print(f'{len(missing)} of {len(todo)} runs are missing', *(job.place for job in missing), sep='\n')
    elif flags.slurm is not None:
        options = cli.words(flags.slurm, '--slurm')
        found = slurm.submit([(job, options) for job in todo])
        print(*(f'{place}: job {number}' for place, number in found.items()), sep='\n')
        return 0
    else:
        failed = jobs.run(todo, workdir, flags.jobs)
    lines = table.lines(workdir, failed)
    why = [f'[{i}] {reason}' for i, reason in enumerate(jobs.reasons(failed), 1)]
    below = '\n'.join([*why, *table.orders(workdir), *table.differences(workdir)])
    text = f'# {table.title}\n\n{table.about}\n\n{export.markdown(lines)}\n{below}\n'
    if not flags.list:
        export.write(workdir, 'table', text, lines, figures.of_table(table, workdir), table.by_row(workdir))
        paths.write(workdir / 'table.html', page.render([], written=[workdir / 'table.md']))
    print(text, end='')
    return jobs.report(failed)


if __name__ == '__main__':
    cli.run(main)
