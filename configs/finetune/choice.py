"""Choose the best ending of a text, from any TFDS data set or files; with settings for SWAG and HellaSwag.

python -m bert_jax.bin.train --config=configs/finetune/choice.py:swag --workdir=runs/swag \
    --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_choice --config=configs/finetune/choice.py:swag --checkpoint=runs/swag \
    --out=runs/swag/scores.json
python -m bert_jax.bin.train --config=configs/finetune/choice.py --workdir=runs/mine \
    --config.init.checkpoint=runs/english --config.data.source='mine/{split}.jsonl'

The argument is swag, hellaswag, or, like --config.data.source, a TFDS name or a path in which {split} stands for train
and validation. The fields are text, endings and label unless data.text, data.endings and data.label name others. HellaSwag
comes from TFDS; for SWAG, download the authors' CSV files and set --config.data.source='FOLDER/{split}.csv'. With
`:hellaswag`, a checkpoint of configs/pretrain/cpu.py:192 stays at chance: 28.0 % after 800 questions (one seed), in
minutes on two cores. On SWAG, the published BERT base reaches 81.6 %. (Zellers et al. 2018, 2019.)
"""

from ml_collections import ConfigDict

from configs import new_config

# Settings of the data, by argument.
DATA_SETS = {
    'hellaswag': dict(source='hellaswag', text='context'),
    'swag': dict(
        source='swag/{split}.csv',
        text='sent1',
        ending_prefix='sent2',
        endings=('ending0', 'ending1', 'ending2', 'ending3'),
        eval_split='val',
    ),
}


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is swag, hellaswag, a TFDS name or a path; if it is empty, set data.source."""
    config = new_config()
    config.task = dict(name='choice')
    config.model = dict(name='bert')
    config.data = DATA_SETS.get(arg, dict(source=arg))
    config.optim = dict(learning_rate=2e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=16)
    config.checkpoint = dict(best_metric='accuracy')
    return config
