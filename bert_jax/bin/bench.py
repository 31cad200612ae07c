"""Benchmark bert_jax on this machine, against PyTorch if it and transformers are installed.

On CPUs, BERT pretraining, fine-tuning, text embeddings, their training or GPT generation. On a GPU or TPU, the throughput of BERT pretraining at the largest
batch that fits, or the training loop against the bare step.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from bert_jax.core import cli, paths
from bert_jax.core.errors import UserError

_PROGRAMS = {
    'bert_jax': 'bert_jax',
    'tuned': 'tuned PyTorch',
    'tuned_bfloat16': 'tuned PyTorch, bfloat16',
    'transformers': 'transformers',
}
_ROWS = ('full', 'packed', 'padded')
_KINDS = {
    'finetuning': 'time fine-tuning on short texts with the lengths of SST-2 sentences, on the CPU',
    'embedding': 'time text embeddings, also with sentence-transformers, on the CPU',
    'embedding-training': 'time training of text embeddings, also with sentence-transformers, on the CPU',
    'generation': 'time text generation by a GPT for 8 prompts, on the CPU',
    'throughput': 'measure the throughput of pretraining at the largest batch; the default on a GPU or TPU',
    'loop': 'measure the training loop with data, metrics and checkpoints against the bare step',
}
_SIZES = {
    'pretraining': ('tiny', 'mini', 'base'),
    'finetuning': ('tiny', 'mini', 'base'),
    'embedding': ('tiny', 'mini', 'base'),
    'embedding-training': ('tiny', 'mini', 'base'),
    'generation': ('mini', 'small'),
    'throughput': ('base', 'large'),
    'loop': ('base',),
}
# Least values of flags.
_MINIMA = {'rounds': 1, 'seconds': 0.001, 'batch': 0, 'doublings': 0, 'dropout': 0, 'limit': 1}


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        'bench',
        __doc__,
        'tiny mini --rounds=1 --seconds=6',
        'base --device=gpu --lengths=512 --rows=full,padded --batch=64 --out=speed.jsonl',
    )
    _add_flags(parser)
    return parser


def main() -> None:
    parser = make_parser()
    flags = parser.parse_args()
    for name, minimum in _MINIMA.items():
        cli.check_minimum(parser, flags, name, minimum)
    model = dict(_parse_setting(text) for text in flags.model)
    if flags.out:
        cli.check_output(flags.out, '--out')
    from bert_jax.benchmarks import comparison, loop, throughput

    on_cpu = flags.kind in ('finetuning', 'embedding', 'embedding-training', 'generation')
    if on_cpu and flags.device not in ('auto', 'cpu'):
        parser.error(f'--{flags.kind} measures on the CPU; set --device=cpu')
    device = throughput.find_device('cpu' if on_cpu else flags.device)
    # This process leaves the memory of the device to those that it starts.
    os.environ['JAX_PLATFORMS'] = 'cpu'
    kind = flags.kind or ('pretraining' if device.platform == 'cpu' else 'throughput')
    print(f'device: {device.kind} ({device.platform})')
    sizes = flags.sizes or _SIZES[kind]
    common: dict[str, Any] = {'rows': flags.batch, 'model': model, 'limit': flags.limit}
    if kind == 'throughput':
        programs = _choose_programs(flags.programs, kind, device.platform)
        throughput.measure(
            device, sizes, flags.lengths, flags.rows, programs, flags.out, dropout=flags.dropout,
            doublings=flags.doublings, seconds=flags.seconds, profile=flags.profile, **common,
        )  # fmt: skip
    elif kind == 'loop':
        for size in sizes:
            for length in flags.lengths:
                loop.measure(device, size, length, flags.out, seconds=flags.seconds, **common)
    else:
        programs = _choose_programs(flags.programs, kind, device.platform)
        results = comparison.compare(sizes, flags.rounds, flags.seconds, programs, kind)
        if flags.out:
            paths.write_atomic(flags.out, json.dumps(results, indent=2) + '\n')


def _add_flags(parser: argparse.ArgumentParser) -> None:
    defaults = '; '.join(f'{kind}: {" ".join(sizes)}' for kind, sizes in _SIZES.items())
    parser.add_argument('sizes', nargs='*', help=f'model sizes; default of {defaults}')
    kinds = parser.add_mutually_exclusive_group()
    for kind, help_text in _KINDS.items():
        kinds.add_argument(f'--{kind}', dest='kind', action='store_const', const=kind, help=help_text)
    parser.add_argument(
        '--device',
        choices=('auto', 'cpu', 'gpu', 'tpu'),
        default='auto',
        help='device to measure on; auto is the default device of JAX',
    )
    parser.add_argument(
        '--programs',
        type=cli.list_of(_PROGRAMS),
        help='programs to time, separated by commas: bert_jax, tuned (PyTorch tuned by hand), tuned_bfloat16 (the same in '
        'bfloat16, for training on CPUs), transformers; default: all that are installed but tuned_bfloat16',
    )
    parser.add_argument(
        '--rounds', type=int, default=2, help='CPU: number of timings per program, which alternate'
    )
    parser.add_argument('--seconds', type=float, default=8, help='approximate duration of one timing')
    parser.add_argument(
        '--out',
        type=pathlib.Path,
        help='file for the results: JSON; with --throughput and --loop, JSON lines, to which each result is appended at once',
    )
    steps = parser.add_argument_group('throughput and loop')
    steps.add_argument(
        '--lengths',
        type=_parse_lengths,
        default=[512, 128],
        help='numbers of tokens in a row, separated by commas; default: 512,128',
    )
    steps.add_argument(
        '--rows',
        type=cli.list_of(_ROWS),
        default=[*_ROWS],
        help=f'kinds of rows, separated by commas; default: {",".join(_ROWS)}',
    )
    steps.add_argument('--batch', type=int, default=0, help='number of rows in the first batch')
    steps.add_argument('--doublings', type=int, default=3, help='how often the batch is doubled at most')
    steps.add_argument(
        '--dropout', type=float, default=0.0, help='dropout of hidden states; that of attention is 0'
    )
    steps.add_argument(
        '--model',
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='setting of the model of bert_jax, such as remat=dots; repeat the flag for several',
    )
    steps.add_argument('--profile', action='store_true', help='list the slowest operations of bert_jax')
    steps.add_argument('--limit', type=float, default=300, help='seconds after which one timing is stopped')


def _parse_lengths(text: str) -> list[int]:
    """Parse row lengths that are separated by commas."""
    if not all(part.isdecimal() and int(part) > 1 for part in text.split(',')):
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of lengths such as 512,128')
    return [int(part) for part in text.split(',')]


def _parse_setting(text: str) -> tuple[str, Any]:
    """Parse the value of `--model`, KEY=VALUE."""
    from bert_jax.core import config

    key, equals, value = text.partition('=')
    if not equals:
        raise UserError(f'--model={text} has no value. Write --model={key}=VALUE.')
    return key, config.parse_value(value)


def _choose_programs(names: Sequence[str] | None, kind: str, platform: str) -> list[str]:
    """Return the programs to time; PyTorch does not run on TPUs."""
    from bert_jax.benchmarks import comparison

    if names and 'tuned_bfloat16' in names and kind not in ('pretraining', 'finetuning'):
        raise UserError(
            f'--programs=tuned_bfloat16 is for pretraining and --finetuning on a CPU, not for --{kind}. Remove it.'
        )
    if names:
        return [_PROGRAMS[name] for name in names]
    return ['bert_jax'] if platform == 'tpu' else comparison.installed_programs(kind)


if __name__ == '__main__':
    cli.run(main)
