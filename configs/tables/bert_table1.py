"""BERT, table 1: GLUE, fine-tuned from a pretrained model and, beside it, from random weights of its shape.

python launch/table.py configs/tables/bert_table1.py --config.checkpoint=runs/english
python launch/table.py configs/tables/bert_table1.py --scale=paper --config.checkpoint=CONVERTED   # base; --scale=large

Published numbers are of GLUE's test sets, own ones of its development sets. A task that is not prepared says so.
"""

from ml_collections import ConfigDict

# name, task of GLUE, score; MNLI matched; F1 of QQP and MRPC.
USES = (
    ('MNLI', 'mnli', 'accuracy'),
    ('QQP', 'qqp', 'f1'),
    ('QNLI', 'qnli', 'accuracy'),
    ('SST-2', 'sst2', 'accuracy'),
    ('CoLA', 'cola', 'matthews'),
    ('STS-B', 'stsb', 'spearman'),
    ('MRPC', 'mrpc', 'f1'),
    ('RTE', 'rte', 'accuracy'),
)
ABOUT = (
    'F1 of QQP and MRPC, Matthews correlation of CoLA, Spearman correlation of STS-B, accuracy of the rest. '
    'Published: {}, test sets. Own: development sets, mean ± standard deviation (runs).'
)
BASE = (84.6, 71.2, 90.5, 93.5, 52.1, 85.8, 88.9, 66.4)
# The row, and what was published.
PUBLISHED = {
    'mini': ('pretrained', BASE),
    'paper': ('BERT base', BASE),
    'large': ('BERT large', (86.7, 72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1)),
}
# Of the published rates 5e-5, 4e-5, 3e-5 and 2e-5 the one in the middle; small models learn faster.
SETTINGS = {
    'mini': (
        'optim.learning_rate=3e-4',
        'data.limit=10_000',
        'train.steps="2 epochs"',
        'train.bins=3',
        'train.eval_rows=2000',
    ),
    'paper': ('optim.learning_rate=3e-5', 'train.steps="3 epochs"'),
    'large': ('optim.learning_rate=2e-5', 'train.steps="3 epochs"'),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, paper (base) or large."""
    about = ABOUT.format(f'Devlin et al. 2019, {"large" if arg == "large" else "base"}')
    return fine_tuned('BERT, table 1: GLUE', about, arg, columns(arg), *PUBLISHED[arg])


def fine_tuned(
    title: str, about: str, arg: str, columns: tuple[dict, ...], name: str, numbers: tuple[float, ...]
) -> ConfigDict:
    """A table of one pretrained model, with what was published of it for the first columns, and random weights beside it."""
    config = ConfigDict()
    config.title, config.about = title, about
    config.seeds = {'mini': 1}.get(arg, 3)
    config.checkpoint = ''
    config.turned = True
    config.rows = (dict(name=name), dict(name='random weights', weights='random'))
    config.columns = columns
    names = [column['name'] for column in columns]
    config.published = {name: dict(zip(names, numbers, strict=False))}
    return config


def columns(arg: str) -> tuple[dict, ...]:
    """A column for each task; `arg` as of `get_config`."""
    return tuple(
        dict(
            name=name,
            config=f'configs/finetune/glue.py:{task}',
            score=score,
            shown='percent',
            settings=('train.eval_every=0', 'checkpoint.every=1.0', *SETTINGS[arg]),
        )
        for name, task, score in USES
    )
