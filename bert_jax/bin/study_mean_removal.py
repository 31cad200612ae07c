"""Study whether mean removal helps cross-lingual transfer."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.study_mean_removal', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='--workdir of a fine-tuning run in one language')
    parser.add_argument(
        '--source_config', required=True, help='config of the task in the fine-tuning language'
    )
    parser.add_argument('--target_config', required=True, help='config of the task in another language')
    parser.add_argument(
        '--metric', default='accuracy', help='metric to report, under its name in the eval commands'
    )
    parser.add_argument('--out', required=True, type=pathlib.Path, help='folder for the table and the figure')
    flags, overrides = cli.parse_args(parser)
    cli.check_writable(flags.out / 'mean_removal.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.evals import scoring
    from bert_jax.reports import export
    from bert_jax.studies import mean_removal

    runtime.configure_process()
    path = pathlib.Path(flags.checkpoint)
    (trained, source), (_, target) = (
        scoring.Scorer(spec, overrides).load_evaluator(path)
        for spec in (flags.source_config, flags.target_config)
    )
    results = {
        'checkpoint': flags.checkpoint,
        'source_config': flags.source_config,
        'source': flags.target_config,  # the scored data, under the key that tables expect
        'split': '',
        **mean_removal.study(trained, source, target, flags.metric),
    }
    table = mean_removal.make_table(results)
    text = (
        f'# Mean removal: {flags.checkpoint}\n\nFine-tuned on {flags.source_config}, scored on {flags.target_config}, '
        f'{results["rows"]:,} rows.\n\n{export.to_markdown(table)}'
    )
    export.write(flags.out, 'mean_removal', text, table, mean_removal.make_figure(results), results)
    print(text, end='')
    return 0


if __name__ == '__main__':
    cli.run(main)
