"""Times the train step of BERT: [tiny mini base], beside Hugging Face transformers if PyTorch is installed."""

import argparse
import json
import pathlib

from bert_jax.core import cli, paths


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.bench', description=__doc__)
    parser.add_argument('sizes', nargs='*', default=['tiny', 'mini', 'base'])
    parser.add_argument('--rounds', type=int, default=2, help='the two are timed in turn so many times')
    parser.add_argument('--seconds', type=float, default=8, help='about how long one timing takes')
    parser.add_argument('--finetuning', action='store_true', help='time short texts, as those of SST-2')
    parser.add_argument('--no_reference', action='store_true', help='time bert_jax alone')
    parser.add_argument('--out', type=pathlib.Path, help='JSON file for the figures')
    flags = parser.parse_args()

    if flags.out:
        cli.check_output(flags.out, '--out')
    from bert_jax.evals import speed

    results = speed.compare(
        flags.sizes, flags.rounds, flags.seconds, not flags.no_reference, flags.finetuning
    )
    if flags.out:
        paths.write(flags.out, json.dumps(results, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    cli.run(main)
