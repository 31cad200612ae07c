"""Study how many dimensions the hidden states of each layer use."""

import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = cli.make_parser(
        'study_dimensionality',
        __doc__,
        '--checkpoint=runs/english --out=runs/english/dimensionality',
        '--checkpoint=runs/english --out=runs/english/dimensionality --source=novels_en.txt.gz --limit=500',
    )
    cli.add_checkpoint_flag(parser, 'a pretraining run')
    parser.add_argument('--out', required=True, type=pathlib.Path, help='folder for the table and the figure')
    parser.add_argument(
        '--source', default='', help='text source; default: the held-out part of the pretraining corpus'
    )
    parser.add_argument('--limit', type=int, default=1000, help='maximum number of sentences')
    flags = parser.parse_args()
    cli.check_writable(flags.out / 'dimensionality.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.reports import export
    from bert_jax.studies import dimensionality, hidden_states

    runtime.configure_process()
    texts = {'text': flags.source} if flags.source else {}
    encoder = hidden_states.load_encoder(flags.checkpoint, texts, limit=flags.limit)
    results = {
        'checkpoint': flags.checkpoint,
        'source': flags.source or 'held-out pretraining text',
        'split': '',
        **dimensionality.study(encoder),
    }
    table = dimensionality.make_table(results)
    text = (
        f'# Effective dimensionality: {flags.checkpoint}\n\n{results["tokens"]:,} tokens of {results["source"]}.\n\n'
        f'{export.to_markdown(table)}'
    )
    export.write(flags.out, 'dimensionality', text, table, dimensionality.make_figure(results), results)
    print(text, end='')
    return 0


if __name__ == '__main__':
    cli.run(main)
