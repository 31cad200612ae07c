"""Study where a model encodes the language, and how well languages are aligned."""

import pathlib

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'study_language',
        __doc__,
        '--checkpoint=runs/bilingual --out=runs/bilingual/language',
        '--checkpoint=runs/multilingual --out=runs/multilingual/language --parallel=xnli --limit=500 --word2vec',
    )
    cli.add_checkpoint_flag(parser, 'a pretraining run on several languages')
    parser.add_argument('--out', required=True, type=pathlib.Path, help='folder for the table and the figure')
    cli.add_text_flags(parser)
    parser.add_argument(
        '--alphas',
        default='0,1,2,3',
        help='comma-separated factors, each used for a separate shift; a shift adds the factor times (target mean - '
        'source mean) to the hidden states; 0 means no shift',
    )
    parser.add_argument(
        '--word2vec',
        action='store_true',
        help='compare with word2vec vectors, trained with gensim on the pretraining text',
    )
    flags = parser.parse_args()
    alphas = cli.parse_numbers(flags.alphas, '--alphas')
    cli.check_writable(flags.out / 'language.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.reports import export
    from bert_jax.studies import hidden_states, language, word2vec

    runtime.configure_process()
    encoder = hidden_states.load_encoder(
        flags.checkpoint, cli.parse_texts(flags.text), flags.parallel, flags.split, flags.limit
    )
    word_vectors = word2vec.train_word2vec(encoder) if flags.word2vec else None
    results = {
        'checkpoint': flags.checkpoint,
        'source': flags.parallel or ', '.join(flags.text) or 'held-out pretraining text',
        'split': flags.split if flags.parallel else '',
        **language.study(encoder, alphas, word_vectors),
    }
    table = language.make_table(results)
    text = (
        f'# Language location and alignment: {flags.checkpoint}\n\n{language.describe(results)}\n\n'
        f'{export.to_markdown(table)}'
    )
    export.write(flags.out, 'language', text, table, language.make_figure(results), results)
    print(text, end='')


if __name__ == '__main__':
    cli.run(main)
