"""Part-of-speech tagging: Universal Dependencies (Nivre et al. 2020).

python -m bert_jax.bin.train --config=configs/finetune/pos.py:en_ewt --workdir=runs/pos \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4
python -m bert_jax.bin.eval_tag --config=configs/finetune/pos.py:en_ewt --checkpoint=runs/pos --out=runs/pos/scores.json

From a checkpoint of configs/pretrain/cpu.py:192, with this learning rate: accuracy 93.9 ± 0.1 % on the development set
(three seeds), in minutes on two cores. The argument is the treebank. For CoNLL-U files, set
--config.data.source='en_ewt-ud-{split}.conllu'.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config


def get_config(arg: str = 'en_ewt') -> ConfigDict:
    """`arg` is the treebank, such as en_ewt or de_gsd."""
    language, _, name = arg.partition('_')
    check_argument(arg, ('LANGUAGE_TREEBANK (such as en_ewt)',), language.isalpha() and name.isalnum())
    config = new_config()
    config.task = dict(name='tag')
    config.model = dict(name='bert')
    config.data = dict(
        source=f'universal_dependencies/{arg}', tokens='tokens', label='upos', eval_split='dev', length=128
    )
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='accuracy')
    return config
