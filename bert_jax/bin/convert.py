"""Converts weights: --from_hf=DIR --to=WORKDIR, or --from=WORKDIR --to_hf=DIR."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.convert', description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--from_hf',
        help='a folder of a Hugging Face model, its name on the hub, or a folder of a TensorFlow checkpoint',
    )
    source.add_argument('--from', dest='workdir', help='a trained --workdir, or one of its steps')
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument('--to', help='a new working directory, to be given as init.checkpoint')
    goal.add_argument('--to_hf', help='a new folder for transformers')
    parser.add_argument(
        '--tokenizer', default='', help='a vocab.txt or tokenizer.json, where --from_hf has none'
    )
    parser.add_argument(
        '--leave_out',
        action='append',
        default=[],
        metavar='NAME',
        help='with --from_hf: tensors whose names begin so are not wanted; may be repeated',
    )
    flags = parser.parse_args()
    if bool(flags.from_hf) != bool(flags.to):
        parser.error('--from_hf goes with --to, and --from with --to_hf')

    from bert_jax.core import runtime
    from bert_jax.train import convert

    runtime.prepare_process()
    target = pathlib.Path(flags.to or flags.to_hf)
    cli.check_writable(target / 'config.json', '--to' if flags.to else '--to_hf')
    if flags.from_hf:
        task = convert.from_hf(flags.from_hf, target, flags.tokenizer, flags.leave_out)
        print(f'{target}: a checkpoint for the task {task}')
    else:
        convert.to_hf(pathlib.Path(flags.workdir), target)
        print(f'{target}: a folder for transformers')
    return 0


if __name__ == '__main__':
    cli.run(main)
