"""Score an extractive question-answering model on questions with known answers."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'qa',
        __doc__,
        '--config=configs/finetune/squad.py:v1.1 --checkpoint=runs/squad --out=runs/squad/scores.json',
        '--config=configs/finetune/squad.py:xquad/zh --checkpoint=runs/squad --out=runs/squad/zh.json',
    )


if __name__ == '__main__':
    cli.run(main)
