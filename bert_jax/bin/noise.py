"""Show how each kind of noise of the task denoise corrupts a text."""

import numpy as np

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'noise',
        __doc__,
        '"The captain looked at the sea. It was calm."',
        '"The captain looked at the sea." --checkpoint=runs/bart --rate=0.5 --seed=1',
    )
    parser.add_argument('text', help='one or more sentences')
    parser.add_argument(
        '--checkpoint', help='--workdir of a run whose tokenizer to use; without it, each word is a token'
    )
    parser.add_argument('--rate', type=float, default=0.3, help='share of the tokens to corrupt')
    parser.add_argument('--mean_span_length', type=float, default=3.0, help='mean length of spans in tokens')
    parser.add_argument('--seed', type=cli.parse_seed, default=0, help='seed of the noise')
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
        raise UserError(f'The text {flags.text!r} has no tokens to corrupt. Write one or more words.')

    def to_string(tokens: np.ndarray) -> str:
        names = [tokenizer.token(i) if i < len(tokenizer) else f'<{i - len(tokenizer)}>' for i in tokens]
        return ' '.join(names)

    print(f'{"original":18}{to_string(text)}')
    for noise in [*((n,) for n in (*denoise.NOISES, *denoise.PARTIAL_TARGETS)), ('permute', 'infill')]:
        config = denoise.Config(noise=noise, rate=flags.rate, mean_span_length=flags.mean_span_length)
        task = denoise.Task(config, TextConfig(), tokenizer)
        source, inputs, labels, _ = task.make_pair(text, np.random.default_rng(flags.seed))
        print(f'{" + ".join(noise):18}{to_string(source[1:-1])}')
        if noise[0] in denoise.PARTIAL_TARGETS:
            print(f'{"":18}decoder input  {to_string(inputs)}\n{"":18}decoder target {to_string(labels)}')


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
