"""DNA classified by a model pretrained on language (Kao & Lee 2021): does it help, and does it learn faster?

python -m bert_jax.bin.table --config=configs/tables/dna.py --workdir=runs/dna --jobs=2 --config.checkpoint=runs/english

On two cores the sequences of two sets are read three nucleotides at a time; `:small` adds two sets of longer ones and takes
an hour more, `:paper` trains on all sequences, for a checkpoint of the paper's size.
"""

from ml_collections import ConfigDict

SCRATCH = 'random weights'
TRIPLETS = ('task.kmer=3', 'task.stride=3')
SHORT = ('optim.learning_rate=3e-4', 'train.eval_every=0.1', 'train.bins=1')
MINI: dict[str, tuple] = {
    'splice': (*SHORT, *TRIPLETS, 'data.length=22'),
    'promoter_core': (
        *SHORT,
        *TRIPLETS,
        'data.length=26',
        'data.limit=8000',
        'train.steps="3 epochs"',
        'train.eval_rows=1000',
    ),
}
HISTONES = (
    *SHORT,
    *TRIPLETS,
    'data.length=170',
    'data.limit=4000',
    'train.steps="2 epochs"',
    'train.eval_rows=1000',
)
SETS: dict[str, dict] = {
    'mini': MINI,
    'small': MINI | dict(h3=HISTONES, h3k9ac=HISTONES),
    'paper': dict.fromkeys(('splice', 'h3', 'h3k9ac', 'promoter_core'), ()),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small or paper."""
    config = ConfigDict()
    config.title = 'DNA by a model of language'
    config.about = 'Accuracy in percent, and updates until the best of random weights is reached; mean ± standard deviation (runs).'
    config.seeds = 5
    config.checkpoint = ''
    config.against = SCRATCH
    config.rows = (
        dict(name='pretrained'),
        dict(name='pretrained, words drawn anew', weights='body'),
        dict(name=SCRATCH, weights='random'),
    )
    config.columns = tuple(
        column
        for name, own in SETS[arg].items()
        for column in (
            dict(name=name, config=f'configs/finetune/dna.py:{name}', shown='percent', settings=own),
            dict(name=f'{name}, updates', of=name, reach=SCRATCH),
        )
    )
    return config
