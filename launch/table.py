"""Runs what is missing of a paper's table and prints it: python launch/table.py configs/tables/X.py [--scale=mini|paper].

Other flags are those of `python -m bert_jax.bin.table`; the working directory is runs/X, or runs/X_paper.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from bert_jax.bin import table
from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python launch/table.py', description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config of the table')
    parser.add_argument(
        '--scale', default='mini', help='mini, the default, for two cores; paper, as published'
    )
    parser.add_argument('--workdir', default='', help='a folder for all runs; the same command goes on')
    flags, rest = parser.parse_known_args()
    if ':' in flags.config:
        parser.error('say --scale=paper instead of :paper')
    name = pathlib.Path(flags.config).stem + ('' if flags.scale == 'mini' else f'_{flags.scale}')
    workdir = flags.workdir or f'runs/{name}'
    return table.main([f'--config={flags.config}:{flags.scale}', f'--workdir={workdir}', *rest])


if __name__ == '__main__':
    cli.run(main)
