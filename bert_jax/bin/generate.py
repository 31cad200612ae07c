"""Continue a prompt with a causal language model."""

import argparse

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.generate', description=__doc__)
    parser.add_argument(
        '--checkpoint',
        required=True,
        help='--workdir of a run of the task clm, or the folder of one of its checkpoints',
    )
    parser.add_argument('--length', type=int, default=100, help='maximum number of new tokens')
    parser.add_argument(
        '--temperature',
        type=float,
        default=0.8,
        help='temperature of the sampling; 0 always takes the most likely token',
    )
    parser.add_argument(
        '--top_k', type=int, default=0, help='sample from the K most likely tokens; 0 samples from all'
    )
    parser.add_argument(
        '--top_p',
        type=float,
        default=1.0,
        help='sample from the most likely tokens with a total probability of P',
    )
    parser.add_argument('--seed', type=cli.parse_seed, default=0, help='seed of the sampling')
    parser.add_argument(
        'prompt', nargs='?', default='', help='text to continue; without it, a new document is started'
    )
    flags = parser.parse_args()
    if flags.length < 1:
        parser.error(f'--length={flags.length} must be at least 1')

    from bert_jax.core import runtime
    from bert_jax.evals import generation
    from bert_jax.modeling.decoding import Sampling

    runtime.configure_process()
    sampling = Sampling(flags.temperature, flags.top_k, flags.top_p)
    generator = generation.Generator(flags.checkpoint)
    pieces = generator.stream(flags.prompt, flags.length, sampling, flags.seed)
    print(flags.prompt, end='', flush=True)
    for piece in pieces:
        print(piece, end='', flush=True)
    print()
    return 0


if __name__ == '__main__':
    cli.run(main)
