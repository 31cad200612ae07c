"""BERT, table 1: GLUE, fine-tuned from a pretrained model and from random weights of the same architecture.

python -m bert_jax.bin.table --config=configs/tables/bert_table1.py --config.checkpoint=runs/english
python -m bert_jax.bin.table --config=configs/tables/bert_table1.py:paper --config.checkpoint=runs/bert_base

By default, at most 10,000 labels per task; with a small model, the table takes 10 to 25 minutes on two CPU cores.
`:paper` uses all labels and is for BERT base, `:large` for BERT large, both converted from Hugging Face (python -m
bert_jax.bin.convert --from_hf=bert-base-uncased --to=runs/bert_base). The published scores are from GLUE's test sets,
ours from its development sets. A task whose data are missing is reported as failed; the others still run.
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import ablation

# Name, task of GLUE, score. MNLI is the matched set.
TASKS = (
    ('MNLI', 'mnli', 'accuracy'),
    ('QQP', 'qqp', 'f1'),
    ('QNLI', 'qnli', 'accuracy'),
    ('SST-2', 'sst2', 'accuracy'),
    ('CoLA', 'cola', 'matthews'),
    ('STS-B', 'stsb', 'spearman'),
    ('MRPC', 'mrpc', 'f1'),
    ('RTE', 'rte', 'accuracy'),
)
DESCRIPTION = (
    'F1 for QQP and MRPC, Matthews correlation for CoLA, Spearman correlation for STS-B, otherwise accuracy. '
    'Published: {}, test sets. Ours: development sets, mean ± standard deviation (number of runs).'
)
BASE = (84.6, 71.2, 90.5, 93.5, 52.1, 85.8, 88.9, 66.4)
# Name of the row, and its published scores.
PUBLISHED = {
    'mini': ('pretrained', BASE),
    'paper': ('BERT base', BASE),
    'large': ('BERT large', (86.7, 72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1)),
}
SHORT = ('train.steps="2 epochs"', 'train.length_buckets=3', 'train.eval_rows=2000')
# The paper tries the learning rates 5e-5, 4e-5, 3e-5 and 2e-5 for each task. Small models need a higher one.
SETTINGS = {
    'mini': ('optim.learning_rate=3e-4', 'data.limit=10_000', *SHORT),
    'paper': ('optim.learning_rate=3e-5', 'train.steps="3 epochs"'),
    'large': ('optim.learning_rate=2e-5', 'train.steps="3 epochs"'),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, paper (base size) or large."""
    check_argument(arg, tuple(PUBLISHED))
    description = DESCRIPTION.format(f'Devlin et al. 2019, {"large" if arg == "large" else "base"}')
    return fine_tuned('BERT, table 1: GLUE', description, arg, columns(arg), *PUBLISHED[arg])


def fine_tuned(
    title: str, description: str, arg: str, columns: list[dict], name: str, published: tuple[float, ...]
) -> ConfigDict:
    """A table with two rows: a pretrained model, and random weights of the same architecture.

    Args:
      title: title of the table.
      description: text below the title.
      arg: argument of `get_config`.
      columns: the columns.
      name: name of the pretrained model.
      published: its published scores, in the order of the columns.
    """
    rows = [dict(name=name), dict(name='random weights', weights='random')]
    config = ablation.table(title, rows, columns, {name: published}, description)
    config.seeds = 1 if arg == 'mini' else 3
    config.transposed = True
    return config


def columns(arg: str) -> list[dict]:
    """One column for each task of GLUE; `arg` is the argument of `get_config`."""
    return [
        dict(
            name=name,
            config=f'configs/finetune/glue.py:{task}',
            score=score,
            format='percent',
            settings=('train.eval_every=0', 'checkpoint.every=1.0', *SETTINGS[arg]),
        )
        for name, task, score in TASKS
    ]
