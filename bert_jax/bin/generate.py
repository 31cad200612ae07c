"""Continue a prompt with a causal language model."""

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'generate',
        __doc__,
        '--checkpoint=runs/gpt "The captain looked at the"',
        '--checkpoint=runs/gpt --length=200 --temperature=0.7 --top_p=0.9 --seed=1 "Once upon a time"',
    )
    cli.add_checkpoint_flag(parser, 'a run of the task clm')
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
    cli.check_minimum(parser, flags, 'length', 1)

    from bert_jax.core import runtime
    from bert_jax.evals import generation
    from bert_jax.modeling.decoding import Sampling
    from bert_jax.train import load

    runtime.configure_process()
    sampling = Sampling(flags.temperature, flags.top_k, flags.top_p)
    trained = load.read_causal(flags.checkpoint)
    for piece in generation.stream(trained, flags.prompt, flags.length, sampling, flags.seed):
        print(piece, end='', flush=True)
    print()


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
