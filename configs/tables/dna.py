"""DNA classified by a model pretrained on language (Kao & Lee 2021): does it help, and does it learn faster?

python -m bert_jax.bin.table --config=configs/tables/dna.py --workdir=runs/dna --jobs=2 --config.checkpoint=runs/english

`:paper` trains on all sequences, for a checkpoint of the paper's size.
"""

from ml_collections import ConfigDict

SCRATCH = 'random weights'
MINI = {
    'splice': ('train.steps="10 epochs"',),
    'h3': ('train.steps="10 epochs"',),
    'h3k9ac': ('train.steps="10 epochs"',),
    'promoter_core': ('train.steps="2 epochs"', 'data.limit=10_000'),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    mini = {name: ('optim.learning_rate=3e-4', *own) for name, own in MINI.items()}
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
