"""Fine-tunes over seeds, or over the recipe of the paper: --config=X.py --workdir=DIR --seeds=N [--recipe] [--over KEY=A,B]."""

import argparse
import json
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.repeat', description=__doc__)
    parser.add_argument('--config', required=True, help='a config file, with :arg if it takes one')
    parser.add_argument('--workdir', required=True, help='a folder for all runs; the same command goes on')
    parser.add_argument('--seeds', type=int, default=1, help='how many, from 0')
    parser.add_argument('--score', help='what to report; the default is checkpoint.best of the config')
    parser.add_argument(
        '--recipe', action='store_true', help='batch 16, 32; learning rate 5e-5, 3e-5, 2e-5; 2, 3, 4 epochs'
    )
    parser.add_argument(
        '--over', action='append', default=[], help='KEY=A,B,...: a grid of your own; once for each key'
    )
    parser.add_argument('--jobs', type=int, default=1, help='so many runs at a time')
    flags, overrides = cli.parse(parser)
    if min(flags.seeds, flags.jobs) < 1:
        parser.error('--seeds and --jobs must be at least 1')
    if wrong := [word for word in flags.over if not word.partition('=')[2]]:
        parser.error(f'--over={wrong[0]} has no values: write KEY=A,B')
    keys = [word.partition('=')[0] for word in flags.over]
    if len({*keys}) < len(keys):
        parser.error('--over names a key twice: give all its values at once, KEY=A,B')
    if any(word.startswith('train.seed=') for word in (*flags.over, *overrides)):
        parser.error('seeds are counted from 0: write --seeds=N, and leave train.seed out')

    from bert_jax.core import paths
    from bert_jax.experiments import jobs, repeats
    from bert_jax.train import experiment

    workdir = pathlib.Path(flags.workdir)
    cli.check_writable(workdir / 'summary.json', '--workdir')
    score = flags.score or experiment.read(flags.config, overrides).checkpoint.best or 'accuracy'
    grid = dict(repeats.RECIPE) if flags.recipe else {}
    grid |= {key: tuple(values.split(',')) for key, _, values in (word.partition('=') for word in flags.over)}
    todo = repeats.jobs(flags.config, workdir, grid, flags.seeds, overrides)
    failed = jobs.run(todo, workdir, flags.jobs)
    if len(failed) < len(todo):
        found = repeats.summary(workdir, grid, flags.seeds, score, failed)
        paths.write(workdir / 'summary.json', json.dumps(found, indent=2) + '\n')
        print(repeats.table(found))
    return jobs.report(failed)


if __name__ == '__main__':
    cli.run(main)
