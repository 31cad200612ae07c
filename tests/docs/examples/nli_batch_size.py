"""NLI with several batch sizes; the learning rate grows with the square root of the batch size.

python -m bert_jax.bin.sweep --config=configs/finetune/nli_batch_size.py --workdir=runs/nli_batch_size --seeds=2 \
    --config.init.checkpoint=runs/english
"""

import math

from ml_collections import ConfigDict

from configs.finetune import xnli


def get_config() -> ConfigDict:
    config = xnli.get_config()
    config.train.steps = '1 epochs'
    return config


def sweep(add) -> None:
    """Add one setting for each batch size."""
    for size in (16, 32, 64):
        rate = round(3e-4 * math.sqrt(size / 32), 6)
        add({'train.batch_size': size, 'optim.learning_rate': rate})
