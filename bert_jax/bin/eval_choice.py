"""Score a multiple-choice model on labeled data."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'choice',
        __doc__,
        '--config=configs/finetune/choice.py:swag --checkpoint=runs/swag --out=runs/swag/scores.json',
        '--config=configs/finetune/choice.py:swag --checkpoint=runs/swag --out=runs/swag/scores.json --watch',
    )


if __name__ == '__main__':
    cli.run(main)
