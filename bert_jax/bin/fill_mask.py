"""Predict the masked tokens of one or more texts."""

import argparse

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.fill_mask', description=__doc__)
    parser.add_argument(
        '--checkpoint',
        required=True,
        help='--workdir of a pretraining run, or the folder of one of its checkpoints',
    )
    parser.add_argument('--top', type=int, default=5, help='number of tokens to print for each mask')
    parser.add_argument('texts', nargs='+', help='texts with one or more [MASK] each')
    flags = parser.parse_args()
    if flags.top < 1:
        parser.error(f'--top={flags.top} must be at least 1')

    from bert_jax.evals import fill_mask

    results = fill_mask.fill(flags.checkpoint, flags.texts, flags.top)
    for text, masks in zip(flags.texts, results, strict=True):
        print(text)
        for number, tokens in enumerate(masks, 1):
            print(f'  mask {number}: ' + '  '.join(f'{token} {p:.1%}' for token, p in tokens))
    return 0


if __name__ == '__main__':
    cli.run(main)
