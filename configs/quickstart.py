"""The quickstart: a small BERT on Python's own documentation, and the pair task. About ten minutes on two cores.

bash launch/quickstart.sh
"""

from ml_collections import ConfigDict

# Pre-norm blocks and rotary positions: context counts after hundreds of updates, not thousands.
_MODEL = dict(
    name='bert', size='tiny', layers=4, norm='pre', rotary=10_000.0, dropout=0.0, attention_dropout=0.0
)


def get_config(arg: str) -> ConfigDict:
    """`arg` is 'pretrain' or 'finetune'."""
    return {'pretrain': _pretrain, 'finetune': _finetune}[arg]()


def _pretrain() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='mlm')
    config.model = _MODEL
    config.data = dict(sources=('pydocs/text',), validation_split='validation', length=128)
    config.tokenizer = dict(vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.1, b2=0.98)
    config.train = dict(steps=2300, batch_size=16, log_every=25, eval_rows=512)
    return config


def _finetune() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='classify')
    config.model = _MODEL
    config.data = dict(source='pydocs/pair', text='signature', second='summary', length=64)
    config.optim = dict(learning_rate=1.5e-4, warmup=0.1)
    config.train = dict(steps=500, batch_size=32, bins=2)
    return config
