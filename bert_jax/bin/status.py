"""Show the progress of a run, or of all runs below a folder."""

import time

from bert_jax.core import cli, paths


def main() -> None:
    parser = cli.make_parser(
        'status',
        __doc__,
        'runs/english',
        'runs --every=10',
    )
    parser.add_argument('folder', help='working directory of a run, or a folder that contains several')
    parser.add_argument(
        '--every',
        type=float,
        default=0.0,
        metavar='SECONDS',
        help='repeat at this interval until interrupted',
    )
    flags = parser.parse_args()
    cli.check_minimum(parser, flags, 'every', 0)

    from bert_jax.experiments import status

    folder = paths.make_path(flags.folder)
    while True:
        if (folder / 'config.json').exists():
            print(*status.describe(folder), sep='\n', flush=True)
        else:
            print(cli.format_table(status.table(folder)), flush=True)
        if not flags.every:
            return
        time.sleep(flags.every)


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
