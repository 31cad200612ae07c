"""Download data sets of the TFDS catalog and prepare them in TFDS_DATA_DIR."""

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'download',
        __doc__,
        'glue/sst2',
        'glue/mrpc wikiann/en',
    )
    parser.add_argument('names', nargs='+', metavar='NAME', help='TFDS name, such as glue/sst2')
    flags = parser.parse_args()

    from bert_jax.data import tfds_data

    for name in flags.names:
        print(f'{name}: {tfds_data.download(name)}')


if __name__ == '__main__':
    cli.run(main)
