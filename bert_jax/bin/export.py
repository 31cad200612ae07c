"""Export a model as a program for JAX or ONNX that runs without bert_jax."""

import os
import pathlib

from bert_jax.core import cli

_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def main() -> None:
    parser = cli.make_parser(
        'export',
        __doc__,
        '--checkpoint=runs/sst2 --out=exported/sst2',
        '--checkpoint=runs/sst2 --out=exported/sst2_onnx --format=onnx --length=64',
    )
    cli.add_checkpoint_flag(parser, 'a run')
    parser.add_argument('--out', required=True, help='new folder for the program')
    parser.add_argument(
        '--format',
        choices=('jax', 'onnx'),
        default='jax',
        help='jax: a StableHLO program for any length, by jax.export; onnx: a model for one length, by jax2onnx',
    )
    parser.add_argument(
        '--platforms',
        type=cli.list_of(_PLATFORMS),
        default=['cpu', 'cuda', 'tpu'],
        help='with --format=jax: platforms of the program, separated by commas: cpu, cuda, rocm or tpu; default: cpu,cuda,tpu',
    )
    parser.add_argument(
        '--length', type=int, help='with --format=onnx: number of tokens in a row; default: 128'
    )
    flags = parser.parse_args()
    if flags.length is None:
        flags.length = 128
    elif flags.format != 'onnx':
        parser.error('--length needs --format=onnx; a program of JAX takes rows of any length')
    cli.check_minimum(parser, flags, 'length', 1)
    cli.check_not_empty(parser, flags)
    os.environ['JAX_PLATFORMS'] = 'cpu'  # kernels of a GPU or TPU cannot run elsewhere

    from bert_jax.core import paths, runtime
    from bert_jax.train import export

    runtime.configure_process()
    source, folder = paths.make_path(flags.checkpoint), pathlib.Path(flags.out)
    cli.check_writable(folder / 'README.md', '--out')
    if flags.format == 'jax':
        export.to_jax(source, folder, flags.platforms)
    else:
        export.to_onnx(source, folder, flags.length)
    print(f'{folder}: program with an example in README.md')


if __name__ == '__main__':
    cli.run(main)
