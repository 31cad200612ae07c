"""Natural language inference: fine-tuned on English pairs, evaluated in any of 15 languages (Conneau et al. 2018).

python -m bert_jax.bin.train --config=configs/finetune/xnli.py --workdir=runs/nli \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4
python -m bert_jax.bin.eval_classify --config=configs/finetune/xnli.py:en --checkpoint=runs/nli --out=runs/nli/en.json

From a checkpoint of configs/pretrain/cpu.py:192, with this learning rate: accuracy 51.6 ± 0.8 % on the English XNLI
after one epoch (three seeds), in minutes on two cores. Without an argument, the config is for training on `nli_small`, 27,478
pairs; with a language as argument, for evaluation on XNLI. To train on MultiNLI, use configs/finetune/glue.py:mnli.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

LANGUAGES = ('ar', 'bg', 'de', 'el', 'en', 'es', 'fr', 'hi', 'ru', 'sw', 'th', 'tr', 'ur', 'vi', 'zh')


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is empty to train on `nli_small`, or a language, such as de, to evaluate on XNLI."""
    check_argument(arg, LANGUAGES, not arg)
    config = new_config()
    config.task = dict(name='classify')
    config.model = dict(name='bert')
    config.data = dict(source='nli_small', text='premise', text_pair='hypothesis', length=128)
    if arg:
        config.data.update(
            source='xnli', text=f'premise.{arg}', text_pair=f'hypothesis.{arg}', eval_split='test'
        )
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='accuracy')
    return config
