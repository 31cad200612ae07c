"""Score a causal language model on running text, the last words of passages, or multiple-choice questions."""

from bert_jax.core import cli


def main() -> int:
    flags, overrides = cli.parse_args(cli.eval_parser('lm', __doc__))

    from bert_jax.evals import language_model, scoring

    return scoring.score_checkpoints(lambda: language_model.Scorer(flags.config, overrides), flags)


if __name__ == '__main__':
    cli.run(main)
