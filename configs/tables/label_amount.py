"""How many labels is pretraining worth? Scores of few labels and of all, from pretrained and from random weights.

python -m bert_jax.bin.table --config=configs/tables/label_amount.py --workdir=runs/label_amount --jobs=2 --config.checkpoint=runs/english

On two cores three uses take less than half an hour; `:small` has all five, twice, `:paper` the settings of a large model.
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
EPOCHS = {100: 10, 500: 5, 2000: 3}
PAPER_EPOCHS = {100: 20, 500: 10, 2000: 5}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small or paper."""
    config = ConfigDict()
    config.title = 'How many labels is pretraining worth?'
    config.about = 'SST-2, NLI and tags: accuracy in percent; entities and answers (SQuAD 1.1): F1. Mean ± standard deviation (runs).'
    config.seeds = {'mini': 1, 'small': 2, 'paper': 5}[arg]
    config.checkpoint = ''
    config.turned = True
    config.amount = 'labelled examples'
    config.against = 'random weights'
    config.rows = (dict(name='pretrained'), dict(name='random weights', weights='random'))
    uses = [use for use in USES if arg != 'mini' or use[0] in ('SST-2', 'tags', 'entities')]
    config.columns = tuple(column for use in uses for column in _columns(*use, paper=arg == 'paper'))
    return config


def _columns(name: str, file: str, score: str, whole: int, paper: bool) -> list[dict]:
    rate, epochs, more = ('5e-5', 3, PAPER_EPOCHS) if paper else ('3e-4', 1, EPOCHS)
    fewer = () if paper else FEWER.get(name, ())
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
                f'train.steps="{more.get(n, epochs)} epochs"',
                f'optim.learning_rate={rate}',
                f'train.eval_every={0.1 if n == amounts[-1] else 0}',  # curves of loss and score
                'checkpoint.every=1.0',
                *(('train.bins=2',) if n in LABELS else ()),  # few lengths, which take long to compile
                *fewer,
            ),
        )
        for n in amounts
    ]
