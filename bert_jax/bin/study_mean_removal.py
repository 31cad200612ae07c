"""Study whether mean removal helps cross-lingual transfer."""

import pathlib

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'study_mean_removal',
        __doc__,
        '--checkpoint=runs/nli --source_config=configs/finetune/xnli.py:en --target_config=configs/finetune/xnli.py:de --out=runs/nli/mean_removal',
        '--checkpoint=runs/squad --source_config=configs/finetune/squad.py:v1.1 --target_config=configs/finetune/squad.py:xquad/zh --metric=f1 --out=runs/squad/mean_removal',
    )
    cli.add_checkpoint_flag(parser, 'a fine-tuning run in one language')
    parser.add_argument(
        '--source_config', required=True, help='config of the task in the fine-tuning language'
    )
    parser.add_argument('--target_config', required=True, help='config of the task in another language')
    parser.add_argument(
        '--metric', default='accuracy', help='metric to report, as named by the eval commands'
    )
    parser.add_argument('--out', required=True, type=pathlib.Path, help='folder for the table and the figure')
    flags, overrides = cli.parse_args(parser)
    cli.check_writable(flags.out / 'mean_removal.json', '--out')

    from bert_jax.core import paths, runtime
    from bert_jax.evals import scoring
    from bert_jax.reports import export
    from bert_jax.studies import mean_removal

    runtime.configure_process()
    path = paths.make_path(flags.checkpoint)
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


if __name__ == '__main__':
    cli.run(main)
