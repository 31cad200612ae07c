"""pydocs/pair: does this summary describe this Python signature?

python -m bert_jax.bin.train --config=configs/finetune/pydocs_pair.py --workdir=runs/pair \
    --config.init.checkpoint=runs/english

Takes minutes on two cores. The accuracy has not been measured with this config. A rule that counts the words that both
texts share reaches 86 %; a model must learn to make such a comparison.
"""

from ml_collections import ConfigDict

from configs import new_config


def get_config() -> ConfigDict:
    config = new_config()
    config.task = dict(name='classify')
    config.model = dict(name='bert', size='tiny')
    config.data = dict(source='pydocs/pair', text='signature', text_pair='summary', length=96)
    config.optim = dict(learning_rate=3e-4, warmup=0.1)
    config.train = dict(steps=800, batch_size=32)
    config.checkpoint = dict(best_metric='accuracy')
    return config
