"""DNA classification with a model pretrained on text (Kao & Lee 2021): does pretraining improve accuracy and speed?

python -m bert_jax.bin.table --config=configs/tables/dna.py --jobs=2 --config.checkpoint=runs/english

By default, two data sets, with three nucleotides per token, in 25 minutes on two CPU cores. `:small` adds two data sets
of longer sequences and takes 75 minutes. `:paper` trains on all sequences and is for a checkpoint of the paper's size.
Expect higher accuracy on some data sets, and faster learning (docs/results/dna.md).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

RANDOM = 'random weights'
COMMON = (
    'optim.learning_rate=3e-4',
    'train.eval_every=0.1',
    'train.length_buckets=1',
    'task.kmer=3',
    'task.stride=3',
)
MINI: dict[str, tuple] = {
    'splice': ('data.length=22',),
    'promoter_core': ('data.length=26', 'data.limit=8000', 'train.steps="3 epochs"', 'train.eval_rows=1000'),
}
HISTONES = ('data.length=170', 'data.limit=4000', 'train.steps="2 epochs"', 'train.eval_rows=1000')
# By `arg` and data set: settings of its fine-tuning.
DATA_SETS: dict[str, dict] = {
    'mini': MINI,
    'small': MINI | dict(h3=HISTONES, h3k9ac=HISTONES),
    'paper': dict.fromkeys(('splice', 'h3', 'h3k9ac', 'promoter_core'), ()),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small (all data sets) or paper (all sequences)."""
    check_argument(arg, tuple(DATA_SETS))
    config = new_config()
    config.title = 'DNA classification with a language model'
    config.description = (
        'Accuracy in percent, mean ± standard deviation (number of runs); and the step at which half of the runs have '
        'reached the best accuracy of random weights (runs that reach it).'
    )
    config.seeds = 5
    config.baseline = RANDOM
    config.rows = (
        dict(name='pretrained'),
        dict(name='pretrained, re-initialized embeddings', weights='reinit_embeddings'),
        dict(name=RANDOM, weights='random'),
    )
    common = () if arg == 'paper' else COMMON
    config.columns = tuple(
        column
        for name, own_settings in DATA_SETS[arg].items()
        for column in (
            dict(
                name=name,
                config=f'configs/finetune/dna.py:{name}',
                format='percent',
                settings=(*common, *own_settings),
            ),
            dict(name=f'{name}, steps', source_column=name, until_score_of=RANDOM),
        )
    )
    return config
