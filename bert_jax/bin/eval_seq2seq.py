"""Score a summarization or translation model by the texts that it generates."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main(
        'seq2seq',
        __doc__,
        '--config=configs/finetune/seq2seq.py:dialogsum --checkpoint=runs/dialogsum --out=runs/dialogsum/scores.json',
        '--config=configs/finetune/seq2seq.py:dialogsum --checkpoint=runs/dialogsum --out=runs/dialogsum/test.json --config.data.eval_split=test',
    )


if __name__ == '__main__':
    cli.run(main)
