"""Score a classifier of DNA or other sequences on labeled data."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main('dna', __doc__)


if __name__ == '__main__':
    cli.run(main)
