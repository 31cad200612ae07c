"""Study how much a word's hidden state depends on its sentence."""

import pathlib

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'study_context',
        __doc__,
        '--checkpoint=runs/english --out=runs/english/context',
        '--checkpoint=runs/english --out=runs/english/bank --word=bank --input=bank.jsonl',
    )
    cli.add_checkpoint_flag(parser, 'a pretraining run')
    parser.add_argument('--out', required=True, type=pathlib.Path, help='folder for the table and the figure')
    parser.add_argument('--word', default='', help='word to study, which each line of --input contains')
    parser.add_argument('--input', help='.jsonl file with a "text" and a "sense" per line')
    parser.add_argument(
        '--control',
        help='--workdir of another pretraining run to compare with, such as one with task.shuffle_tokens=true',
    )
    parser.add_argument(
        '--source',
        default='',
        help='text source of the sentences for self-similarity; default: the held-out part of the pretraining corpus',
    )
    parser.add_argument(
        '--limit', type=int, default=1000, help='maximum number of sentences for self-similarity'
    )
    flags = parser.parse_args()
    if bool(flags.word) != bool(flags.input):
        parser.error('--word and --input require each other')
    cli.check_writable(flags.out / 'context.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.core.errors import UserError
    from bert_jax.data import records
    from bert_jax.reports import export
    from bert_jax.studies import context, hidden_states

    runtime.configure_process()
    word, examples = context.DEFAULT_WORD, context.DEFAULT_EXAMPLES
    if flags.input:
        if not pathlib.Path(flags.input).is_file():
            raise UserError(f'--input={flags.input} does not exist. Set --input to an existing file.')
        word, lines = flags.word, records.read_file(flags.input)
        examples = tuple((line.text('sense'), line.text('text')) for line in lines)
        if not examples:
            raise UserError(
                f'--input={flags.input} has no examples. Write {{"sense": ..., "text": ...}} on each line.'
            )
    texts = {'text': flags.source} if flags.source else {}

    def study(checkpoint: str) -> tuple:
        encoder = hidden_states.load_encoder(checkpoint, texts, limit=flags.limit)
        return encoder.sentences, *context.study(encoder, word, examples)

    sentences, results, vectors = study(flags.checkpoint)
    control = study(flags.control)[1] if flags.control else None
    table = context.make_table(results)
    text = (
        f'# Contextual word vectors: {flags.checkpoint}\n\nStudied word: “{word}”, in {len(examples)} sentences. '
        f'Self-similarity: mean over {results["word_count"]:,} words that occur at least five times in {sentences:,} '
        'other sentences.\n\n'
        f'{export.to_markdown(table)}'
    )
    if control:
        text += f'\nControl, {flags.control}:\n\n' + export.to_markdown(context.make_table(control))
    figure = context.make_figure(results, vectors, control)
    export.write(flags.out, 'context', text, table, figure, {**results, 'control': control})
    print(text, end='')


if __name__ == '__main__':
    cli.run(main)
