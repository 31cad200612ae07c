"""The quickstart: a small BERT on Python's own documentation, and the pair task. About ten minutes on two cores.

bash launch/quickstart.sh
"""

from ml_collections import ConfigDict


def get_config(arg: str) -> ConfigDict:
    """`arg` is 'pretrain' or 'finetune'."""
    return {'pretrain': _pretrain, 'finetune': _finetune}[arg]()


def _pretrain() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='mlm')
    # With rotary positions context counts after hundreds of updates, with learned ones after thousands.
    config.model = dict(
        name='bert', size='tiny', layers=4, norm='pre', rotary=10_000.0, dropout=0.0, attention_dropout=0.0
    )
    config.data = dict(sources=('pydocs/text',), validation_split='validation', length=128)
    config.tokenizer = dict(vocab_size=8192)
    config.optim = dict(learning_rate=2e-3, warmup=0.1, b2=0.98)
    config.train = dict(steps=1800, batch_size=16, log_every=25, eval_rows=512)
    return config


def _finetune() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='classify')
    config.model = dict(name='bert', dropout=0.0, attention_dropout=0.0)
    config.data = dict(source='pydocs/pair', text='signature', second='summary', length=64)
    config.optim = dict(learning_rate=3e-4, warmup=0.1)
    config.train = dict(steps=500, batch_size=32, bins=2, eval_every=0.25)
    return config
