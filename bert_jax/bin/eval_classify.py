"""Score a text classifier on labeled data."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'classify',
        __doc__,
        '--config=configs/finetune/glue.py:mrpc --checkpoint=runs/mrpc --out=runs/mrpc/scores.json',
        '--config=configs/finetune/xnli.py:de --checkpoint=runs/nli --out=runs/nli/de.json --watch',
    )


if __name__ == '__main__':
    cli.run(main)
