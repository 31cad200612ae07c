"""BERT, table 5: what the pretraining tasks are worth; and sentence order instead of next sentence (Lan et al. 2020).

python -m bert_jax.bin.table --config=configs/tables/bert_table5.py --workdir=runs/bert_table5 --jobs=2 --config.text=novels_en.txt.gz
"""

from ml_collections import ConfigDict

from configs.tables import ablation

# MNLI, QNLI, MRPC, SST-2, SQuAD F1, on the development sets.
USES = ('MNLI', 'QNLI', 'MRPC', 'SST-2', 'SQuAD')
PUBLISHED = {
    'BERT': (84.4, 88.4, 86.7, 92.7, 88.5),
    'no NSP': (83.9, 84.9, 86.5, 92.6, 87.9),
    'left to right, no NSP': (82.1, 84.3, 77.5, 92.1, 77.8),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    as_bert: tuple[str, ...] = ()
    if arg == 'mini':  # the shape and the vocabulary of the others
        as_bert = (
            'model.width=128',
            'model.heads=2',
            'model.mlp=512',
            'data.length=128',
            'train.batch_size=32',
        )
        as_bert = (*as_bert, 'tokenizer.kind=wordpiece')
    rows = [
        ablation.pretraining('BERT', arg),
        ablation.pretraining('no NSP', arg, ('task.next=none',)),
        ablation.pretraining('left to right, no NSP', arg, as_bert, model='gpt'),
        ablation.pretraining('sentence order', arg, ('task.next=swap',)),
    ]
    columns = ablation.uses(USES, arg)
    return ablation.table('BERT, table 5', rows, columns, PUBLISHED)
