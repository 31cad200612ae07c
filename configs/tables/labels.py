"""How many labels is pretraining worth? Scores of few labels and of all, from pretrained and from random weights.

python -m bert_jax.bin.table --config=configs/tables/labels.py --workdir=runs/labels --jobs=2 --config.checkpoint=runs/english
"""

from ml_collections import ConfigDict

# name, config, score, how many labels there are
USES = (
    ('SST-2', 'configs/finetune/sst2.py', 'accuracy', 67_349),
    ('NLI', 'configs/finetune/xnli.py', 'accuracy', 27_478),
    ('tags', 'configs/finetune/pos.py:en_ewt', 'accuracy', 12_544),
    ('entities', 'configs/finetune/ner.py:en', 'entity_f1', 20_000),
)
LABELS = (100, 500, 2000)
# Epochs for so many examples: few of them are seen more often.
EPOCHS = {100: 20, 500: 10, 2000: 5}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    rate, epochs = {'mini': ('3e-4', 1), 'paper': ('5e-5', 3)}[arg]
    config = ConfigDict()
    config.title = 'How many labels is pretraining worth?'
    config.about = 'SST-2, NLI and tags: accuracy in percent; entities: F1. Mean ± standard deviation (runs).'
    config.seeds = 3
    config.checkpoint = ''
    config.turned = True
    config.amount = 'labelled examples'
    config.against = 'random weights'
    config.rows = (dict(name='pretrained'), dict(name='random weights', weights='random'))
    config.columns = tuple(
        dict(
            name=f'{name}, {"all" if n == whole else f"{n:,}"}',
            config=file,
            score=score,
            shown='percent',
            panel=name,
            x=n,
            settings=(
                f'data.limit={0 if n == whole else n}',
                f'train.steps="{EPOCHS.get(n, epochs)} epochs"',
                f'optim.learning_rate={rate}',
                'train.eval_every=0',
                'checkpoint.every=1.0',
            ),
        )
        for name, file, score, whole in USES
        for n in (*LABELS, whole)
    )
    return config
