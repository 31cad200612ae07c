"""Entry point that the evaluation commands of downstream tasks share."""

import argparse
from collections.abc import Sequence

from bert_jax.core import cli
from bert_jax.train.settings import read_sections


def main(task: str, description: str | None, *examples: str) -> int:
    """Run `python -m bert_jax.bin.eval_TASK` and return its exit status.

    Args:
      task: name of the downstream task.
      description: text that --help shows.
      *examples: arguments of example calls, which --help shows as well.
    """
    flags, overrides = cli.parse_args(cli.eval_parser(task, description, *examples), read_sections)

    return score(task, flags, overrides)


def score(task: str, flags: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Score checkpoints of a task with the flags of its evaluation command; return the exit status of the command."""
    from bert_jax.evals import scoring  # slow to import, so after the flags are checked

    def make_scorer() -> scoring.Scorer:
        scorer = scoring.Scorer(flags.config, overrides, task)
        _ = scorer.records  # an error in them should not wait for a checkpoint
        return scorer

    return scoring.score_checkpoints(make_scorer, flags)
