"""BERT, tables 2 and 3: SQuAD 1.1 and 2.0, fine-tuned from a pretrained model and from random weights.

python -m bert_jax.bin.table --config=configs/tables/bert_table2.py --config.checkpoint=runs/english
python -m bert_jax.bin.table --config=configs/tables/bert_table2.py:paper --config.checkpoint=runs/bert_base

By default, 5,000 questions; with a small model, the table takes 10 to 25 minutes on two CPU cores. `:paper` uses all
questions and is for BERT base, `:large` for BERT large, both converted from Hugging Face (python -m
bert_jax.bin.convert --from_hf=bert-base-uncased --to=runs/bert_base). A small model stays far below the published
scores (docs/results/bert_tables.md).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import bert_table1

# By column: version of SQuAD, score.
COLUMNS = {
    'table 2, exact match': ('v1.1', 'exact_match'),
    'table 2, F1': ('v1.1', 'f1'),
    'table 3, exact match': ('v2.0', 'best_exact_match'),
    'table 3, F1': ('v2.0', 'best_f1'),
}
# Name of the row, and its published scores; table 3 has no base model.
PUBLISHED = {
    'mini': ('pretrained', (80.8, 88.5)),
    'paper': ('BERT base', (80.8, 88.5)),
    'large': ('BERT large', (84.1, 90.9, 78.7, 81.9)),
}
MINI = ('optim.learning_rate=3e-4', 'data.limit=5000', 'data.length=256', *bert_table1.SHORT)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, paper (base size) or large."""
    check_argument(arg, tuple(PUBLISHED))
    description = (
        'Table 2: SQuAD 1.1. Table 3: SQuAD 2.0, at the best no-answer threshold. Development sets. Published: Devlin et al. '
        f'2019, {"large" if arg == "large" else "base"}. Ours: mean ± standard deviation (number of runs).'
    )
    columns = [_column(name, *column, arg) for name, column in COLUMNS.items()]
    return bert_table1.fine_tuned('BERT, tables 2 and 3: SQuAD', description, arg, columns, *PUBLISHED[arg])


def _column(name: str, version: str, score: str, arg: str) -> dict:
    if 'F1' in name:  # another score of the same runs
        return dict(name=name, score=score, source_column=name.replace('F1', 'exact match'))
    scale = MINI if arg == 'mini' else ('optim.learning_rate=5e-5',)
    settings = ('train.eval_every=0', 'checkpoint.every=1.0', *scale)
    return dict(name=name, config=f'configs/finetune/squad.py:{version}', score=score, settings=settings)
