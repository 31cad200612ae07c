"""Multiple choice of the best ending: SWAG (Zellers et al. 2018) and HellaSwag (Zellers et al. 2019).

python -m bert_jax.bin.train --config=configs/finetune/choice.py:swag --workdir=runs/swag \
    --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_choice --config=configs/finetune/choice.py:swag --checkpoint=runs/swag \
    --out=runs/swag/scores.json

With `:hellaswag` (the default), a checkpoint of configs/pretrain/cpu.py:192 stays at chance: 28.0 % after 800 questions
(one seed), in minutes on two cores. On SWAG, the published BERT base reaches 81.6 %. HellaSwag comes from TFDS; for
SWAG, download the authors' CSV files and set --config.data.source='swag/{split}.csv'.
"""

from ml_collections import ConfigDict

from configs import check_argument


def get_config(arg: str = 'hellaswag') -> ConfigDict:
    """`arg` is swag or hellaswag."""
    check_argument(arg, ('swag', 'hellaswag'))
    config = ConfigDict()
    config.task = dict(name='choice')
    config.model = dict(name='bert')
    if arg == 'swag':
        endings = tuple(f'ending{i}' for i in range(4))
        config.data = dict(
            source='swag/{split}.csv', text='sent1', ending_prefix='sent2', endings=endings, eval_split='val'
        )
    else:
        config.data = dict(source='hellaswag', text='context', endings=('endings',))
    config.optim = dict(learning_rate=2e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=16)
    config.checkpoint = dict(best_metric='accuracy')
    return config
