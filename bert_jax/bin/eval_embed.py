"""Score text embeddings by the cosine similarities of labeled pairs."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'embed',
        __doc__,
        '--config=configs/finetune/embed.py:stsb --checkpoint=runs/embed --out=runs/embed/stsb.json',
        '--config=configs/finetune/embed.py:sick --checkpoint=runs/embed --out=runs/embed/sick.json --watch',
    )


if __name__ == '__main__':
    cli.run(main)
