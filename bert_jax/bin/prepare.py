"""Turns text into rows for pretraining: --config=configs/pretrain/X.py --rows=DIR."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.prepare', description=__doc__)
    parser.add_argument('--config', required=True, help='a pretraining config, with :arg if it takes one')
    parser.add_argument(
        '--rows', required=True, help='folder for rows and tokenizer; train with --config.data.rows=DIR'
    )
    flags, overrides = cli.parse(parser)

    from bert_jax.core.errors import UserError
    from bert_jax.data.prepare import TextConfig
    from bert_jax.data.rows import read_manifest
    from bert_jax.train import experiment as experiment_lib
    from bert_jax.train import setup

    experiment = experiment_lib.read(flags.config, [*overrides, f'data.rows={flags.rows}'])
    if not isinstance(experiment.data, TextConfig):
        raise UserError(f'{flags.config!r} is not a pretraining config: only those have rows to prepare.')
    experiment, tokenizer, _ = setup.begin(experiment, pathlib.Path(flags.rows))
    rows = setup.RowsOf(experiment.make_task(tokenizer), experiment, tokenizer, pathlib.Path(flags.rows))
    for length in rows.lengths:
        folder = rows.prepare(length)
        counts = read_manifest(folder)['counts']
        print(f'{folder}: ' + ', '.join(f'{v:,} {k.replace("_", " ")}' for k, v in counts.items()))
    return 0


if __name__ == '__main__':
    cli.run(main)
