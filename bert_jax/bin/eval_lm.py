"""Asks a model that predicts the next token: --config=configs/eval/lm.py:WHAT --checkpoint=DIR --out=FILE.json [--watch]."""

from bert_jax.core import cli


def main() -> int:
    flags, overrides = cli.parse(cli.eval_parser('lm', __doc__))

    from bert_jax.evals import language_model, scoring

    return scoring.follow(lambda: language_model.Scorer(flags.config, overrides), flags)


if __name__ == '__main__':
    cli.run(main)
