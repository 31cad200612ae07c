"""BERT on the text of your choice: masked LM and next-sentence prediction.

python -m bert_jax.bin.train --config=configs/pretrain/bert.py:tiny --workdir=runs/bert-tiny
"""

from ml_collections import ConfigDict


def get_config(arg: str = 'tiny') -> ConfigDict:
    """`arg` is the size: tiny, mini, small, medium, base or large."""
    config = ConfigDict()
    config.task = dict(name='mlm')
    config.model = dict(name='bert', size=arg)
    config.data = dict(sources=('pydocs/text',), length=128)
    config.tokenizer = dict(kind='wordpiece', vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.1)
    config.train = dict(steps=1000, batch_size=64)
    return config
