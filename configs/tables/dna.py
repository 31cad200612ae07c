"""DNA classified by a model pretrained on language (Kao & Lee 2021): does it help, and does it learn faster?

python -m bert_jax.bin.table --config=configs/tables/dna.py --workdir=runs/dna --jobs=2 --config.checkpoint=runs/english

`:paper` trains on all sequences, for a checkpoint of the paper's size.
"""

from ml_collections import ConfigDict

SCRATCH = 'random weights'
# On two cores histone marks are read three nucleotides at a time, and an eighth of the promoters.
TRIPLETS = ('task.kmer=3', 'task.stride=3', 'data.length=170')
MINI = {
    'splice': ('train.steps="6 epochs"',),
    'h3': ('train.steps="4 epochs"', *TRIPLETS),
    'h3k9ac': ('train.steps="3 epochs"', *TRIPLETS),
    'promoter_core': ('train.steps="1 epochs"', 'data.limit=6000'),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    mini = {
        name: (
            'optim.learning_rate=3e-4',
            'train.eval_every=0.1',
            'train.bins=1',
            *own,
        )
        for name, own in MINI.items()
    }
    paper: dict = dict.fromkeys(MINI, ())
    settings = {'mini': mini, 'paper': paper}[arg]
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
        for name, own in settings.items()
        for column in (
            dict(name=name, config=f'configs/finetune/dna.py:{name}', shown='percent', settings=own),
            dict(name=f'{name}, updates', of=name, reach=SCRATCH),
        )
    )
    return config
