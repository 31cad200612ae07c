"""Score an extractive question-answering model on questions with known answers."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main('qa', __doc__)


if __name__ == '__main__':
    cli.run(main)
