"""Scores a classifier of DNA: --config=configs/finetune/X.py --checkpoint=DIR --out=FILE.json [--watch]."""

from bert_jax.core import cli


def main() -> int:
    flags, overrides = cli.parse(cli.eval_parser('dna', __doc__))

    from bert_jax.evals import scoring

    return scoring.run('dna', flags, overrides)


if __name__ == '__main__':
    cli.run(main)
