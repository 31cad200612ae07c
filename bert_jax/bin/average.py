"""Average the parameters of the last checkpoints of a run, or of several runs."""

import pathlib

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'average',
        __doc__,
        '--from=runs/english --last=5 --to=runs/english_average',
        '--from=runs/seed0 --from=runs/seed1 --last=1 --to=runs/both',
    )
    parser.add_argument(
        '--from',
        dest='sources',
        action='append',
        required=True,
        metavar='DIR',
        help='the --workdir of a training run, or the folder of one of its steps; may be repeated',
    )
    parser.add_argument(
        '--last',
        type=int,
        default=0,
        help='number of newest checkpoints of each --from; by default all that it keeps',
    )
    parser.add_argument(
        '--to', required=True, help='new working directory, for use as init.checkpoint or --checkpoint'
    )
    flags = parser.parse_args()
    cli.check_not_empty(parser, flags, sources='from')
    cli.check_minimum(parser, flags, 'last', 0)

    from bert_jax.core import paths, runtime
    from bert_jax.train import average

    runtime.configure_process()
    folder = pathlib.Path(flags.to)
    cli.check_writable(folder / 'config.json', '--to')
    steps = average.find_checkpoints([paths.make_path(source) for source in flags.sources], flags.last)
    average.average(steps, folder)
    print(f'{folder}: mean of {len(steps)} checkpoints: {", ".join(map(str, steps))}')


if __name__ == '__main__':
    cli.run(main)
