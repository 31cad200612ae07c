"""Run the missing jobs of a table, and print our scores next to the published ones.

Writes table.md, .csv, .tex, .json, .html and, for some tables, .png into the working directory. To resume unfinished
runs, run the same command again.
"""

import argparse
import pathlib
from collections.abc import Sequence

from bert_jax.core import cli, paths
from bert_jax.core import config as config_lib
from bert_jax.core.settings import Section, describe_section


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = cli.make_parser(
        'table',
        __doc__,
        '--config=configs/tables/bert_table1.py --config.checkpoint=runs/english',
        '--config=configs/tables/bert_table5.py:mini --workdir=runs/table5 --list --config.seeds=3',
    )
    parser.add_argument(
        '--config',
        required=True,
        help='config of a table, with :arg (such as mini, small or paper) if it takes an argument',
    )
    parser.add_argument(
        '--workdir',
        default='',
        help='folder for all runs; by default runs/X or runs/X_ARG for configs/tables/X.py:ARG',
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='maximum number of parallel runs')
    parser.add_argument(
        '--list', action='store_true', help='only print the missing runs, and the table of the finished ones'
    )
    parser.add_argument(
        '--slurm',
        metavar='OPTIONS',
        help='submit the missing runs to SLURM, with these options of sbatch; to print the table later, use --list',
    )
    flags, overrides = cli.parse_args(parser, _read_sections)
    cli.check_minimum(parser, flags, 'jobs', 1)
    if flags.slurm is not None and flags.jobs > 1:
        parser.error('--jobs cannot be combined with --slurm, which runs as many jobs as the cluster allows')
    return flags, overrides


def _read_sections(spec: str, overrides: Sequence[str]) -> list[Section]:
    """Return the keys of a table as one section, with the names of its rows and columns as their values."""
    from bert_jax.experiments import tables

    values = {'published': {}, 'checkpoints': {}, **config_lib.as_dict(tables.load(spec, overrides))}
    names = {key: tuple(entry['name'] for entry in values.get(key, ())) for key in ('rows', 'columns')}
    origins = dict.fromkeys(config_lib.load(spec), 'config')
    return [describe_section(tables.Table, '', {**values, **names}, origins, overrides)]


def main() -> int:
    flags, overrides = _parse()

    from bert_jax.experiments import comparisons, jobs, slurm, tables
    from bert_jax.reports import export, figures, page

    path, _, arg = flags.config.partition(':')
    workdir = pathlib.Path(flags.workdir or f'runs/{pathlib.Path(path).stem}{"_" * bool(arg)}{arg}')
    cli.check_writable(workdir / 'table.md', '--workdir')
    table = tables.read(flags.config, overrides)
    todo = table.jobs(workdir)
    failures = {}
    if flags.list:
        missing = jobs.find_unfinished(todo)
        print(f'{len(missing)} of {len(todo)} runs are missing', *jobs.describe_unfinished(missing), sep='\n')
    elif flags.slurm is not None:
        options = cli.split_options(flags.slurm, '--slurm')
        ids = slurm.submit([(job, options) for job in todo])
        print(*(f'{folder}: job {job_id}' for folder, job_id in ids.items()), sep='\n')
        return 0
    else:
        failures = jobs.run(todo, workdir, flags.jobs)
    lines = table.lines(workdir, failures)
    notes = [
        *jobs.footnotes(failures),
        *comparisons.rank_correlations(table, workdir),
        *comparisons.differences(table, workdir),
    ]
    text = '\n'.join([f'# {table.title}\n\n{table.description}\n\n{export.to_markdown(lines)}', *notes, ''])
    if not flags.list:
        figure = figures.plot_table(table, workdir)
        export.write(
            workdir, 'table', text, lines, figure, table.json_values(workdir), table.numbers(workdir)
        )
        paths.write_atomic(workdir / 'table.html', page.render([], files=[workdir / 'table.md']))
    print(text, end='')
    return jobs.report_failures(failures)


if __name__ == '__main__':
    cli.run(main)
