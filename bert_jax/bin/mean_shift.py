"""Shift the hidden states of sentences toward another language, and print the predicted tokens."""

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'mean_shift',
        __doc__,
        '--checkpoint=runs/multilingual --source=en --target=de "The captain looked at the sea."',
        '--checkpoint=runs/bilingual --source=text --target=fake --layer=2 --alphas=0,1,2 "He was there."',
    )
    cli.add_checkpoint_flag(parser, 'a pretraining run on several languages')
    parser.add_argument('--source', required=True, help='language of the sentences')
    parser.add_argument('--target', required=True, help='language to shift to')
    parser.add_argument(
        '--layer', type=int, help='layer to shift, where 0 is the embeddings; default: the middle layer'
    )
    parser.add_argument(
        '--alphas',
        default='0,1,2,3',
        help='comma-separated factors, each used for a separate shift; a shift adds the factor times '
        '(target mean - source mean) to the hidden states; 0 means no shift',
    )
    cli.add_text_flags(parser)
    parser.add_argument('sentences', nargs='+', help='sentences to shift')
    flags = parser.parse_args()
    alphas = cli.parse_numbers(flags.alphas, '--alphas')
    if flags.source == flags.target:
        parser.error(f'--source and --target are both {flags.source!r}; pass two languages')

    from bert_jax.core import runtime
    from bert_jax.studies import hidden_states, language_location

    runtime.configure_process()
    encoder = hidden_states.load_encoder(
        flags.checkpoint, cli.parse_texts(flags.text), flags.parallel, flags.split, flags.limit,
        (flags.source, flags.target), flags.layer or 0,
    )  # fmt: skip
    layer = encoder.layers // 2 if flags.layer is None else flags.layer
    batches = [encoder.single_batch(flags.source, sentence) for sentence in flags.sentences]
    target_mean = language_location.language_mean(encoder, flags.target)
    difference = target_mean - language_location.language_mean(encoder, flags.source)
    for batch in batches:
        lines = language_location.shifted_tokens(encoder, batch, difference, layer, alphas)
        header = [f'layer {layer}', *(f'α={alpha:g}' for alpha in alphas)]
        print(cli.format_table([header, *lines]))


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
