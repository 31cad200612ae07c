"""Score a regression model on labeled data."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'regress',
        __doc__,
        '--config=configs/finetune/glue.py:stsb --checkpoint=runs/stsb --out=runs/stsb/scores.json',
        '--config=configs/finetune/glue.py:stsb --checkpoint=runs/stsb --out=runs/stsb/scores.json --watch',
    )


if __name__ == '__main__':
    cli.run(main)
