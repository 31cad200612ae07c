"""Score a word tagger on labeled data."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'tag',
        __doc__,
        '--config=configs/finetune/ner.py:en --checkpoint=runs/ner --out=runs/ner/scores.json',
        '--config=configs/finetune/pos.py:en_ewt --checkpoint=runs/pos --out=runs/pos/test.json --config.data.eval_split=test',
    )


if __name__ == '__main__':
    cli.run(main)
