"""Predict the masked tokens of one or more texts."""

from bert_jax.core import cli
from bert_jax.core.errors import UserError


def main() -> int | None:
    parser = cli.make_parser(
        'fill_mask',
        __doc__,
        '--checkpoint=runs/english "The captain looked at the [MASK]."',
        '--checkpoint=runs/english --top=3 "She [MASK] home." "He was a [MASK] man."',
    )
    cli.add_checkpoint_flag(parser, 'a pretraining run')
    parser.add_argument('--top', type=int, default=5, help='number of tokens to print for each mask')
    parser.add_argument('texts', nargs='+', help='texts with one or more [MASK] each')
    flags = parser.parse_args()
    cli.check_minimum(parser, flags, 'top', 1)

    from bert_jax.evals import fill_mask

    filler = fill_mask.MaskFiller(flags.checkpoint)
    status: int | None = 0
    for text in flags.texts:
        try:
            masks = filler(text, flags.top)
        except UserError as e:  # the other texts are filled all the same
            status = cli.report_error(e)
            continue
        print(text)
        for number, tokens in enumerate(masks, 1):
            print(f'  mask {number}: ' + '  '.join(f'{token} {p:.1%}' for token, p in tokens))
    return status


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
