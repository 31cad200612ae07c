"""Convert a model from or to the Hugging Face format, or from a TensorFlow checkpoint."""

import pathlib
import re

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'convert',
        __doc__,
        '--from_hf=bert-base-uncased --to=runs/bert_base',
        '--from=runs/sst2 --to_hf=exported/sst2',
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--from_hf',
        help='folder of a Hugging Face model, its name on the Hub, or folder of a TensorFlow checkpoint',
    )
    source.add_argument(
        '--from', dest='workdir', help='the --workdir of a training run, or the folder of one of its steps'
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument('--to', help='new working directory, for use as init.checkpoint or --checkpoint')
    target.add_argument('--to_hf', help='new folder for the model in the format of the transformers library')
    parser.add_argument(
        '--tokenizer',
        help='with --from_hf: a vocab.txt or tokenizer.json, if the folder has none',
    )
    parser.add_argument(
        '--exclude',
        action='append',
        default=[],
        metavar='PREFIX',
        help='with --from_hf: ignore tensors whose names start with PREFIX; may be repeated',
    )
    parser.add_argument(
        '--license',
        default='unknown',
        help='with --to_hf: license for the model card, by its identifier on the Hugging Face Hub, such as apache-2.0',
    )
    parser.add_argument(
        '--part',
        choices=('discriminator', 'generator'),
        help='with --to_hf of a run with task.name=rtd: the model to convert (default: discriminator)',
    )
    flags = parser.parse_args()
    cli.check_not_empty(parser, flags, workdir='from')
    if (flags.from_hf is None) != (flags.to is None):
        parser.error(
            '--from_hf needs --to, not --to_hf' if flags.from_hf else '--from needs --to_hf, not --to'
        )
    if flags.workdir and (flags.tokenizer or flags.exclude):
        parser.error('--tokenizer and --exclude need --from_hf')
    if flags.from_hf and flags.license != 'unknown':
        parser.error('--license needs --to_hf')
    if flags.from_hf and flags.part:
        parser.error('--part needs --to_hf')
    if not re.fullmatch(r'[\w.-]+', flags.license):
        parser.error(
            f'--license={flags.license!r} is not an identifier; use one such as apache-2.0, mit or other'
        )

    from bert_jax.core import paths, runtime
    from bert_jax.train import convert

    runtime.configure_process()
    folder = pathlib.Path(flags.to or flags.to_hf)
    cli.check_writable(folder / 'config.json', '--to' if flags.to else '--to_hf')
    if flags.from_hf:
        task = convert.from_hf(flags.from_hf, folder, flags.tokenizer or '', flags.exclude)
        print(f'{folder}: checkpoint for the task {task}')
    else:
        convert.to_hf(paths.make_path(flags.workdir), folder, flags.license, flags.part or '')
        library = (
            'sentence-transformers' if (folder / 'modules.json').exists() else 'the transformers library'
        )
        print(f'{folder}: model for {library}')


if __name__ == '__main__':
    cli.run(main)
