"""Natural language inference: learned from English pairs, tested in any of 15 languages (Conneau et al. 2018).

python -m bert_jax.bin.train --config=configs/finetune/xnli.py --workdir=runs/nli --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_classify --config=configs/finetune/xnli.py:en --checkpoint=runs/nli --out=runs/nli/en.json

Without an argument it trains on `nli_small`, 27,478 pairs; with MultiNLI at hand use configs/finetune/glue.py:mnli.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is a language of XNLI to score, or nothing for `nli_small`."""
    config = ConfigDict()
    config.task = dict(name='classify')
    config.model = dict(name='bert')
    config.data = dict(source='nli_small', text='premise', second='hypothesis', length=128)
    if arg:
        config.data.update(
            source='xnli', text=f'premise.{arg}', second=f'hypothesis.{arg}', eval_split='test'
        )
    config.init = dict(checkpoint='', weights='pretrained')
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best='accuracy')
    return config
