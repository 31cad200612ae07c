"""Scores texts that are written of others: --config=configs/finetune/X.py --checkpoint=DIR --out=FILE.json [--watch]."""

from bert_jax.core import cli


def main() -> int:
    flags, overrides = cli.parse(cli.eval_parser('seq2seq', __doc__))

    from bert_jax.evals import scoring

    return scoring.run('seq2seq', flags, overrides)


if __name__ == '__main__':
    cli.run(main)
