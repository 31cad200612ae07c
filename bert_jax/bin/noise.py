"""Breaks a text in every way that a denoising model learns from: "Your text." [--checkpoint=DIR]."""

import argparse

import numpy as np

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.noise', description=__doc__)
    parser.add_argument('text', help='one sentence or more')
    parser.add_argument('--checkpoint', help='a --workdir, for its word pieces; without it words are tokens')
    parser.add_argument('--rate', type=float, default=0.3, help='share of the tokens that are taken')
    parser.add_argument('--span', type=float, default=3.0, help='mean length of spans')
    parser.add_argument('--seed', type=cli.seed, default=0)
    flags = parser.parse_args()

    from bert_jax.core.errors import UserError
    from bert_jax.data import tokenizer as tokenizer_lib
    from bert_jax.data.prepare import TextConfig
    from bert_jax.tasks import denoise

    if flags.checkpoint:
        from bert_jax.train import load

        tokenizer = load.read(flags.checkpoint).tokenizer
    else:
        tokenizer = tokenizer_lib.from_words(flags.text)
    (text,) = tokenizer.encode([flags.text])
    if not len(text):
        raise UserError('There is nothing to break: give a text of one word or more.')

    def show(tokens: np.ndarray) -> str:
        names = [tokenizer.token(i) if i < len(tokenizer) else f'<{i - len(tokenizer)}>' for i in tokens]
        return ' '.join(names)

    print(f'{"original":18}{show(text)}')
    for noise in [*((n,) for n in (*denoise.NOISES, *denoise.ALONE)), ('permute', 'infill')]:
        config = denoise.Config(noise=noise, rate=flags.rate, span=flags.span)
        task = denoise.Task(config, TextConfig(), tokenizer)
        source, before, labels, _ = task.pair(text, np.random.default_rng(flags.seed))
        print(f'{" + ".join(noise):18}{show(source[1:-1])}')
        if noise[0] in denoise.ALONE:
            print(f'{"":18}the decoder sees {show(before)}\n{"":18}and predicts     {show(labels)}')
    return 0


if __name__ == '__main__':
    cli.run(main)
