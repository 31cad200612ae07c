"""Scores a classifier: --config=configs/finetune/X.py --checkpoint=DIR --out=FILE.json [--watch]."""

import argparse
import json
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.eval_classify', description=__doc__)
    parser.add_argument('--config', required=True, help='the config of the task: which data to score')
    parser.add_argument('--checkpoint', required=True, help='a fine-tuned --workdir, or one of its steps')
    parser.add_argument('--out', required=True, help='JSON file for the scores')
    parser.add_argument(
        '--watch', action='store_true', help='score each new checkpoint of a running job to its end'
    )
    parser.add_argument('--poll', type=float, default=10, help='with --watch: seconds between looks')
    parser.add_argument(
        '--timeout', type=float, default=3600, help='with --watch: give up after so many idle seconds'
    )
    flags, overrides = cli.parse(parser)

    from bert_jax.core import hosts, paths
    from bert_jax.evals import scoring

    hosts.prepare_process()
    out = pathlib.Path(flags.out)
    cli.check_writable(out, '--out')
    scorer = scoring.Scorer(flags.config, overrides, 'classify')
    steps = (
        scoring.watch(pathlib.Path(flags.checkpoint), flags.poll, flags.timeout)
        if flags.watch
        else [pathlib.Path(flags.checkpoint)]
    )
    result = None
    for step in steps:
        result = scorer(step)
        print(
            f'{flags.checkpoint}, step {result["step"]:,}, {result["source"]} {result["split"]}, n = {result["examples"]:,}'
        )
        print(scorer.describe(result['scores']), flush=True)
        paths.write(out, json.dumps(result, indent=2) + '\n')
    return 0 if result else 1


if __name__ == '__main__':
    cli.run(main)
