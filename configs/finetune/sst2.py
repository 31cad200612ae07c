"""SST-2: the sentiment of a sentence (GLUE, Wang et al. 2018), from all training examples or from 500.

python -m bert_jax.bin.train --config=configs/finetune/sst2.py:all --workdir=runs/sst2 \
    --config.init.checkpoint=runs/english

From a checkpoint of configs/pretrain/cpu.py, the accuracy over three seeds is 83.4 ± 0.1 % with all examples (from random
weights, 80.0 ± 0.5 %), and 61.6 ± 1.6 % with 500 (`:few`; from random weights, 66.1 ± 0.4 %). A run with all examples
takes eight minutes on one shared core.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config


def get_config(arg: str = 'all') -> ConfigDict:
    """`arg` is all or few (500 training examples)."""
    check_argument(arg, ('all', 'few'))
    config = new_config()
    config.task = dict(name='classify')
    config.model = dict(name='bert', size='tiny')
    config.data = dict(source='glue/sst2', text='sentence', length=64, limit={'all': 0, 'few': 500}[arg])
    config.optim = dict(learning_rate=3e-4, warmup=0.1)
    config.train = dict(steps={'all': '2 epochs', 'few': '20 epochs'}[arg], batch_size=32)
    config.checkpoint = dict(best_metric='accuracy')
    return config


def sweep(add) -> None:
    """Sweep learning rates and batch sizes: `python -m bert_jax.bin.sweep --config=configs/finetune/sst2.py:few ...`."""
    for rate in (3e-5, 1e-4, 3e-4):
        for size in (16, 32):
            add({'optim.learning_rate': rate, 'train.batch_size': size})
