"""Parts of speech: Universal Dependencies (Nivre et al. 2020).

python -m bert_jax.bin.train --config=configs/finetune/pos.py:en_ewt --workdir=runs/pos --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_tag --config=configs/finetune/pos.py:en_ewt --checkpoint=runs/pos --out=runs/pos/scores.json

Files of your own: --config.data.source='en_ewt-ud-{split}.conllu'.
"""

from ml_collections import ConfigDict


def get_config(arg: str = 'en_ewt') -> ConfigDict:
    """`arg` is the treebank."""
    config = ConfigDict()
    config.task = dict(name='tag')
    config.model = dict(name='bert')
    config.data = dict(
        source=f'universal_dependencies/{arg}', tokens='tokens', label='upos', eval_split='dev', length=128
    )
    config.init = dict(checkpoint='', weights='pretrained')
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best='accuracy')
    return config
