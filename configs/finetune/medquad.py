"""Long texts: which kind of question does this answer of a medical site reply to? (Ben Abacha & Demner-Fushman 2019)

python -m bert_jax.bin.train --config=configs/finetune/medquad.py:2048 --workdir=runs/medquad \
    --config.init.checkpoint=runs/modern
python -m bert_jax.bin.eval_classify --config=configs/finetune/medquad.py:2048 --checkpoint=runs/medquad \
    --out=runs/medquad/scores.json

The argument is the length of the rows in tokens. The task is to tell the type of the question, one of 16, from the answer;
the most frequent type makes up 28.9 % of the 1,000 test answers. After one epoch with a learning rate of 1e-3, a small model
reaches 88.3 % with rows of 2,048 tokens and 88.6 % with rows of 128 (one seed, docs/guides/long_texts.md). Rows of 2,048
tokens hold 99 % of the answers as a whole, rows of 512 tokens 85 %. The checkpoint needs rotary or relative positions. The learning rate suits BERT base, 3e-4 models of a few million parameters.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config


def get_config(arg: str = '2048') -> ConfigDict:
    """`arg` is the length of the rows: 128, 512, 1024, 2048 or 4096."""
    check_argument(arg, ('128', '512', '1024', '2048', '4096'))
    config = new_config()
    config.task = dict(name='classify')
    config.model = dict(name='bert')
    config.data = dict(source='medquad', text='answer', label='qtype', eval_split='test', length=int(arg))
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    # Few texts are as long as the rows, so most batches are cut to a much shorter length.
    config.train = dict(steps='2 epochs', batch_size=32, accumulation_steps=4, eval_batch_size=8)
    config.checkpoint = dict(best_metric='accuracy')
    return config
