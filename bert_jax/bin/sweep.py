"""Train one config with several settings and seeds, and compare their scores.

The settings are all combinations of the values of --over and --recipe. Without these flags, the function sweep(add) of
the config file adds the settings. If the file has no such function, the only setting is the config itself. To resume
unfinished runs, run the same command again.
"""

import argparse
import pathlib
import shlex
from typing import Any

from bert_jax.core import cli
from bert_jax.train.settings import read_sections


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = cli.make_parser(
        'sweep',
        __doc__,
        '--config=configs/finetune/sst2.py:few --workdir=runs/sweep --seeds=3 --over=optim.learning_rate=1e-4,3e-4 --config.init.checkpoint=runs/english',
        '--config=configs/finetune/glue.py:mrpc --workdir=runs/mrpc_sweep --recipe --jobs=2 --score=f1 --config.init.checkpoint=runs/english',
    )
    parser.add_argument('--config', required=True, help='config file, with :arg if it takes an argument')
    parser.add_argument('--workdir', required=True, help='folder for all runs and for the table')
    parser.add_argument(
        '--over',
        action='append',
        default=[],
        metavar='KEY=A,B',
        help='values of a config key to compare; may be repeated for other keys',
    )
    parser.add_argument(
        '--recipe',
        action='store_true',
        help='compare the settings that the BERT paper recommends: batch size 16, 32; learning rate 5e-5, 3e-5, 2e-5; 2, 3, 4 epochs',
    )
    parser.add_argument(
        '--seeds', type=int, default=1, metavar='N', help='run each setting with seeds 0 to N-1'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=0,
        metavar='N',
        help='maximum number of parallel runs; 0, the default, means 1 on this machine and no limit on SLURM',
    )
    parser.add_argument(
        '--slurm',
        metavar='OPTIONS',
        help='submit the runs to SLURM as an array, with these options of sbatch',
    )
    parser.add_argument(
        '--print',
        action='store_true',
        help='only print the command of each run; with --slurm, the script of the array and that of its first run',
    )
    parser.add_argument('--list', action='store_true', help='only print the table of the runs so far')
    parser.add_argument(
        '--score',
        default='',
        help='score to compare; by default checkpoint.best_metric of the config or, if that is empty, the accuracy or the loss',
    )
    flags, overrides = cli.parse_args(parser, read_sections)
    cli.check_minimum(parser, flags, 'seeds', 1)
    cli.check_minimum(parser, flags, 'jobs', 0)
    if wrong := [word for word in flags.over if not word.partition('=')[2]]:
        parser.error(f'--over={wrong[0]} has no values; write --over=KEY=A,B')
    keys = [word.partition('=')[0] for word in flags.over]
    if len({*keys}) < len(keys):
        parser.error('--over names a key twice; write all its values in one flag: --over=KEY=A,B')
    if any(word.startswith('train.seed=') for word in (*flags.over, *overrides)):
        parser.error('train.seed is set by the sweep; write --seeds=N instead')
    return flags, overrides


def main() -> int:
    flags, overrides = _parse()

    from bert_jax.experiments import jobs, slurm, sweeps
    from bert_jax.reports import export, figures

    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / 'sweep.md', '--workdir')
    values: dict[str, tuple[Any, ...]] = dict(sweeps.RECIPE) if flags.recipe else {}
    for word in flags.over:
        key, _, text = word.partition('=')
        values[key] = sweeps.parse_values(text)
    settings = sweeps.grid(values) if values else sweeps.from_config(flags.config)
    sweep = sweeps.trials(flags.config, workdir, settings, flags.seeds, overrides)
    todo = [job for trial in sweep for job in trial.jobs]
    options = None if flags.slurm is None else cli.split_options(flags.slurm, '--slurm')
    if flags.print:
        jobs.validate(todo)
        if options is None:
            print(*(shlex.join(job.command) for job in todo), sep='\n')
        else:
            print(slurm.preview_array(todo, options, workdir, flags.jobs), end='')
        return 0
    if flags.score:  # which the finished runs may lack
        sweeps.objective(sweep, flags.score)
    failures = {}
    if options is not None:
        ids = slurm.submit_array(todo, options, workdir, flags.jobs)
        print(*(f'{folder}: job {job_id}' for folder, job_id in ids.items()), sep='\n')
    elif flags.list:
        changed = {folder: change for folder, change in jobs.find_unfinished(todo).items() if change}
        print(*jobs.describe_unfinished(changed), sep='\n', end='\n' * bool(changed))
    else:
        failures = jobs.run(todo, workdir, flags.jobs or 1)
    objective = sweeps.objective(sweep, flags.score)
    summary = sweeps.summarize(sweep, objective, failures)
    lines = sweeps.table(sweep, summary, objective, failures)
    footnotes = '\n'.join(jobs.footnotes(failures))
    if any(job.folder.exists() for job in todo):
        text = f'# {flags.config}\n\n{objective.description}\n\n{export.to_markdown(lines)}\n{footnotes}\n'
        numbers = sweeps.numbers(summary, objective)
        export.write(workdir, 'sweep', text, lines, figures.plot_sweep(summary), summary, numbers)
    print(objective.description, cli.format_table(lines), *([footnotes] if footnotes else []), sep='\n')
    return jobs.report_failures(failures)


if __name__ == '__main__':
    cli.run(main)
