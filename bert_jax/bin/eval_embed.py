"""Score text embeddings: the cosine similarities of labeled pairs, or the classes and clusters of single texts.

A config of the task embed scores pairs, also with an encoder that was trained on another task. One of the task classify
scores the vectors of single texts: classes by logistic regression on the vectors of its training split, and clusters.
"""

from bert_jax.core import cli
from bert_jax.evals import command
from bert_jax.train.settings import read_sections


def main() -> int:
    parser = cli.eval_parser(
        'embed',
        __doc__,
        '--config=configs/finetune/embed.py:stsb --checkpoint=runs/embed --out=runs/embed/stsb.json',
        '--config=configs/finetune/classify.py:banking77 --checkpoint=runs/embed --out=runs/embed/banking77.json '
        '--config.data.eval_split=test',
    )
    flags, overrides = cli.parse_args(parser, read_sections)

    from bert_jax.evals import scoring, vector_scores  # slow to import, so after the flags are checked
    from bert_jax.train import experiment

    task = experiment.read(flags.config, overrides).task.name
    if task == 'classify':
        return scoring.score_checkpoints(lambda: vector_scores.ClassScorer(flags.config, overrides), flags)
    if task == 'embed' and not vector_scores.is_trained_to_embed(flags.checkpoint):
        return scoring.score_checkpoints(lambda: vector_scores.PairScorer(flags.config, overrides), flags)
    return command.score('embed', flags, overrides)


if __name__ == '__main__':
    cli.run(main)
