"""Show the progress of a run, or of all runs below a folder."""

import pathlib
import time

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'status',
        __doc__,
        'runs/english',
        'runs --every=10',
    )
    parser.add_argument(
        'folder', type=pathlib.Path, help='working directory of a run, or a folder that contains several'
    )
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

    while True:
        if (flags.folder / 'config.json').exists():
            print(*status.describe(flags.folder), sep='\n', flush=True)
        else:
            print(cli.format_table(status.table(flags.folder)), flush=True)
        if not flags.every:
            return
        time.sleep(flags.every)


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
