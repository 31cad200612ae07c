"""Continue a prompt with a causal language model, or replace the masks of a text with a masked one."""

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'generate',
        __doc__,
        '--checkpoint=runs/gpt "The captain looked at the"',
        '--checkpoint=runs/diffusion --steps=16 "The captain [MASK:20] home."',
    )
    cli.add_checkpoint_flag(parser, 'a run of the task clm or mlm')
    parser.add_argument('--length', type=int, default=100, help='maximum number of new tokens')
    parser.add_argument(
        '--steps',
        type=int,
        default=0,
        help='masked language models: number of steps in which the masks are replaced; by default one per mask',
    )
    parser.add_argument(
        '--show_steps', action='store_true', help='masked language models: print the text after each step'
    )
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
        'prompt',
        nargs='?',
        default='',
        help='text to continue; without it, a new document is started. For a masked language model, a text with [MASK] for '
        'one token and [MASK:8] for eight; without masks, --length of them follow',
    )
    flags = parser.parse_args()
    cli.check_minimum(parser, flags, 'length', 1)
    cli.check_minimum(parser, flags, 'steps', 0)

    from bert_jax.core import runtime
    from bert_jax.evals import generation
    from bert_jax.modeling.decoding import Sampling
    from bert_jax.train import load

    runtime.configure_process()
    sampling = Sampling(flags.temperature, flags.top_k, flags.top_p)
    trained = load.read_language_model(flags.checkpoint)
    if not trained.is_causal:
        options = (flags.prompt, flags.length, flags.steps, sampling, flags.seed)
        for text in generation.unmask(trained, *options):
            if flags.show_steps:
                print(text, flush=True)
        if not flags.show_steps:
            print(text)
        return
    if flags.steps or flags.show_steps:
        parser.error(
            '--steps and --show_steps are for masked language models; this one writes from left to right'
        )
    for piece in generation.stream(trained, flags.prompt, flags.length, sampling, flags.seed):
        print(piece, end='', flush=True)
    print()


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
