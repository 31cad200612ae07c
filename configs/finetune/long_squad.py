"""Question answering over long contexts: several paragraphs of an article of SQuAD 1.1, read in one window.

python -m bert_jax.bin.train --config=configs/finetune/long_squad.py:2048 --workdir=runs/long_squad \
    --config.init.checkpoint=runs/modern
python -m bert_jax.bin.eval_qa --config=configs/finetune/long_squad.py:2048 --checkpoint=runs/long_squad \
    --out=runs/long_squad/scores.json

The argument is the length of the rows in tokens. The context of a question is up to 8 paragraphs, about 1,400 tokens. Rows
of 2,048 tokens hold 96 % of them in one window, rows of 512 take five (docs/guides/long_texts.md). The F1 has not been
measured with this config. The checkpoint needs rotary or relative positions. The learning rate suits BERT base, 3e-4 models
of a few million parameters.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Length of the rows, maximum length of a question, and tokens between two windows.
WINDOWS = {'128': (128, 32, 64), '512': (512, 64, 256), '1024': (1024, 64, 512), '2048': (2048, 64, 1024)}


def get_config(arg: str = '2048') -> ConfigDict:
    """`arg` is the length of the rows: 128, 512, 1024 or 2048."""
    check_argument(arg, tuple(WINDOWS))
    length, max_question_length, stride = WINDOWS[arg]
    config = new_config()
    config.task = dict(name='qa')
    config.model = dict(name='bert')
    config.data = dict(
        source='squad/v1.1',
        paragraphs=8,
        length=length,
        max_question_length=max_question_length,
        stride=stride,
    )
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='2 epochs', batch_size=32, accumulation_steps=4, eval_batch_size=8)
    config.checkpoint = dict(best_metric='f1')
    return config
