"""Turns text into rows for pretraining: --config=configs/pretrain/X.py --rows=DIR [--beam=OPTIONS]."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.prepare', description=__doc__)
    parser.add_argument('--config', required=True, help='a pretraining config, with :arg if it takes one')
    parser.add_argument(
        '--rows', required=True, help='folder for rows and tokenizer; train with --config.data.rows=DIR'
    )
    parser.add_argument(
        '--beam',
        metavar='OPTIONS',
        help='let Apache Beam make the rows, by the runner that its options name: "--runner=DirectRunner"',
    )
    parser.add_argument(
        '--staging', default='', help='of Beam: a folder that all workers see, such as gs://BUCKET/tmp'
    )
    flags, overrides = cli.parse(parser)
    if flags.staging and flags.beam is None:
        parser.error('--staging is for --beam')

    from bert_jax.core.errors import UserError
    from bert_jax.data import beam
    from bert_jax.data.prepare import TextConfig
    from bert_jax.data.rows import read_manifest
    from bert_jax.train import experiment as experiment_lib
    from bert_jax.train import inputs

    experiment = experiment_lib.read(flags.config, [*overrides, f'data.rows={flags.rows}'])
    if not isinstance(experiment.data, TextConfig):
        raise UserError(f'{flags.config!r} is not a pretraining config: only those have rows to prepare.')
    run = None if flags.beam is None else beam.runner(flags.beam, flags.staging)
    experiment, tokenizer, _ = inputs.begin(experiment, pathlib.Path(flags.rows))
    rows = inputs.RowsOf(experiment.make_task(tokenizer), experiment, tokenizer, pathlib.Path(flags.rows))
    for length in rows.lengths:
        folder = rows.prepare(length, run)
        counts = read_manifest(folder)['counts']
        print(f'{folder}: ' + ', '.join(f'{v:,} {k.replace("_", " ")}' for k, v in counts.items()))
    return 0


if __name__ == '__main__':
    cli.run(main)
