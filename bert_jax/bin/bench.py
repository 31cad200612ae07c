"""Benchmark BERT pretraining, fine-tuning or GPT generation against PyTorch, if it and transformers are installed."""

import json
import pathlib

from bert_jax.core import cli, paths


def main() -> None:
    parser = cli.make_parser(
        'bench',
        __doc__,
        'tiny mini --rounds=1 --seconds=6',
        'mini --generation --no_reference --out=speed.json',
    )
    parser.add_argument(
        'sizes', nargs='*', help='model sizes; default: tiny mini base, or mini small with --generation'
    )
    parser.add_argument(
        '--rounds', type=int, default=2, help='number of timings per program; the programs alternate'
    )
    parser.add_argument('--seconds', type=float, default=8, help='approximate duration of one timing')
    kinds = parser.add_mutually_exclusive_group()
    for kind, help_text in (
        ('finetuning', 'time fine-tuning on short texts with the lengths of SST-2 sentences'),
        ('generation', 'time text generation by a GPT for 8 prompts'),
    ):
        kinds.add_argument(f'--{kind}', dest='kind', action='store_const', const=kind, help=help_text)
    parser.add_argument('--no_reference', action='store_true', help='time bert_jax only')
    parser.add_argument('--out', type=pathlib.Path, help='JSON file for the results')
    flags = parser.parse_args()

    if flags.out:
        cli.check_output(flags.out, '--out')
    from bert_jax.benchmarks import comparison

    kind = flags.kind or 'pretraining'
    sizes = flags.sizes or (['mini', 'small'] if kind == 'generation' else ['tiny', 'mini', 'base'])
    results = comparison.compare(sizes, flags.rounds, flags.seconds, not flags.no_reference, kind)
    if flags.out:
        paths.write_atomic(flags.out, json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    cli.run(main)
