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
    ('answers', 'configs/finetune/squad.py:v1.1', 'f1', 87_599),
)
# Questions are long: on two cores there are 2,000 of them at most.
FEWER = {'answers': ('data.length=256', 'train.eval_rows=1000')}
LABELS = (100, 500, 2000)
# Epochs for so many examples: few of them are seen more often.
EPOCHS = {'mini': {100: 10, 500: 5, 2000: 3}, 'paper': {100: 20, 500: 10, 2000: 5}}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    config = ConfigDict()
    config.title = 'How many labels is pretraining worth?'
    config.about = 'SST-2, NLI and tags: accuracy in percent; entities and answers (SQuAD 1.1): F1. Mean ± standard deviation (runs).'
    config.seeds = {'mini': 2, 'paper': 5}[arg]
    config.checkpoint = ''
    config.turned = True
    config.amount = 'labelled examples'
    config.against = 'random weights'
    config.rows = (dict(name='pretrained'), dict(name='random weights', weights='random'))
    config.columns = tuple(column for use in USES for column in _columns(*use, arg))
    return config


def _columns(name: str, file: str, score: str, whole: int, arg: str) -> list[dict]:
    rate, epochs = {'mini': ('3e-4', 1), 'paper': ('5e-5', 3)}[arg]
    fewer = FEWER.get(name, ()) if arg == 'mini' else ()
    amounts = LABELS if fewer else (*LABELS, whole)
    return [
        dict(
            name=f'{name}, {"all" if n == whole else f"{n:,}"}',
            config=file,
            score=score,
            shown='' if score == 'f1' else 'percent',
            panel=f'{name}: {"accuracy" if score == "accuracy" else "F1"} in %',
            x=n,
            settings=(
                f'data.limit={0 if n == whole else n}',
                f'train.steps="{EPOCHS[arg].get(n, epochs)} epochs"',
                f'optim.learning_rate={rate}',
                f'train.eval_every={0.1 if n == amounts[-1] else 0}',  # curves of loss and score
                'checkpoint.every=1.0',
                *(('train.bins=2',) if n in LABELS else ()),  # few lengths, which take long to compile
                *fewer,
            ),
        )
        for n in amounts
    ]
