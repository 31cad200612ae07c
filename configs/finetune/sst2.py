"""SST-2: the sentiment of a sentence (GLUE, Wang et al. 2018)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='classify')
    config.model = dict(name='bert', size='tiny')
    config.data = dict(source='glue/sst2', text='sentence', length=64)
    config.init = dict(checkpoint='', weights='pretrained')
    config.optim = dict(learning_rate=1e-4, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best='accuracy')
    return config
