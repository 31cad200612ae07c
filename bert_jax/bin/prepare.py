"""Prepare pretraining rows from text."""

from bert_jax.core import cli, paths
from bert_jax.train.settings import read_sections


def main() -> None:
    parser = cli.make_parser(
        'prepare',
        __doc__,
        '--config=configs/pretrain/cpu.py --rows=rows/english --config.data.sources="novels_en.txt.gz,wiki_articles"',
        '--config=configs/pretrain/bert.py:base --rows=rows/wikipedia --config.data.sources=wikipedia/20230601.en --beam="--runner=DirectRunner"',
    )
    parser.add_argument('--config', required=True, help='pretraining config: FILE.py or FILE.py:ARGUMENT')
    parser.add_argument(
        '--rows',
        required=True,
        help='output folder for rows and tokenizer; train on it with --config.data.rows_dir=DIR',
    )
    parser.add_argument(
        '--beam',
        metavar='OPTIONS',
        help='prepare the rows with Apache Beam and these options, such as "--runner=DirectRunner"',
    )
    parser.add_argument(
        '--staging',
        default='',
        help='with --beam: folder that all workers can access, such as gs://BUCKET/tmp; default: the output folder',
    )
    flags, overrides = cli.parse_args(parser, read_sections)
    if flags.staging and flags.beam is None:
        parser.error('--staging needs --beam')
    target = paths.make_path(flags.rows)
    cli.check_writable(target / 'tokenizer.json', '--rows')

    from bert_jax.core.errors import UserError
    from bert_jax.data import beam
    from bert_jax.data.prepare import TextConfig
    from bert_jax.data.rows import read_manifest
    from bert_jax.train import checks, inputs
    from bert_jax.train import experiment as experiment_lib

    experiment = experiment_lib.read(flags.config, [*overrides, f'data.rows_dir={flags.rows}'])
    if not isinstance(experiment.data, TextConfig):
        raise UserError(
            f'{flags.config!r} is not a pretraining config. Set --config to one, such as configs/pretrain/X.py.'
        )
    if experiment.trains_tokenizer:
        checks.check_task(*experiment_lib.preview(experiment))
    run_shards = None if flags.beam is None else beam.make_runner(flags.beam, flags.staging)
    with inputs.local_rows(experiment, target):
        experiment, tokenizer, _ = inputs.resolve(experiment, target)
        rows = inputs.TaskRows(experiment.make_task(tokenizer), experiment, tokenizer, target)
        counts = {n: read_manifest(rows.prepare(n, run_shards))['counts'] for n in rows.lengths}
    for length, numbers in counts.items():
        described = ', '.join(f'{v:,} {k.replace("_", " ")}' for k, v in numbers.items())
        density = numbers['train_tokens'] / (length * numbers['train_rows'])
        print(f'{target / f"length{length}"}: {described}; {1 - density:.1%} of the train rows is padding')


if __name__ == '__main__':
    cli.run(main)
