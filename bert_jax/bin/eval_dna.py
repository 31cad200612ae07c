"""Score a classifier of DNA or other sequences on labeled data."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'dna',
        __doc__,
        '--config=configs/finetune/dna.py:splice --checkpoint=runs/splice --out=runs/splice/scores.json',
        '--config=configs/finetune/dna.py:h3 --checkpoint=runs/h3 --out=runs/h3/scores.json --watch',
    )


if __name__ == '__main__':
    cli.run(main)
