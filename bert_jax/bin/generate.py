"""Goes on with a text: --checkpoint=DIR "prompt" [--temperature=T] [--top_k=K] [--top_p=P] [--length=N]."""

import argparse

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.generate', description=__doc__)
    parser.add_argument(
        '--checkpoint', required=True, help='a --workdir of the task clm, or one of its steps'
    )
    parser.add_argument('--length', type=int, default=100, help='new tokens at most')
    parser.add_argument('--temperature', type=float, default=0.8, help='0 always takes the likeliest token')
    parser.add_argument('--top_k', type=int, default=0, help='draw from the K likeliest; 0 is all')
    parser.add_argument('--top_p', type=float, default=1.0, help='draw from the likeliest that add up to P')
    parser.add_argument('--seed', type=cli.seed, default=0)
    parser.add_argument('prompt', nargs='?', default='', help='what comes first; without it a text is begun')
    flags = parser.parse_args()
    if flags.length < 1:
        parser.error('--length must be at least 1')

    from bert_jax.core import runtime
    from bert_jax.evals import generation
    from bert_jax.modeling.decoding import Sampling

    runtime.prepare_process()
    sampling = Sampling(flags.temperature, flags.top_k, flags.top_p)
    writer = generation.Writer(flags.checkpoint)
    pieces = writer.stream(flags.prompt, flags.length, sampling, flags.seed)
    print(flags.prompt, end='', flush=True)
    for piece in pieces:
        print(piece, end='', flush=True)
    print()
    return 0


if __name__ == '__main__':
    cli.run(main)
