"""pydocs/pair: does this summary describe this Python signature?

python -m bert_jax.bin.train --config=configs/finetune/pydocs_pair.py --workdir=runs/pair --config.init.checkpoint=runs/novels

The number of shared words alone gives 86 %; a model must learn to compare the two texts.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='classify')
    config.model = dict(name='bert', size='tiny')
    config.data = dict(source='pydocs/pair', text='signature', second='summary', length=96)
    config.init = dict(checkpoint='', weights='pretrained')
    config.optim = dict(learning_rate=3e-4, warmup=0.1)
    config.train = dict(steps=800, batch_size=32)
    config.checkpoint = dict(best='accuracy')
    return config
