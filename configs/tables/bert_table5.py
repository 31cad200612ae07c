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
# What makes a GPT the same but for the objective: shape, rows, vocabulary, rates.
AS_BERT = {
    'mini': (
        'model.width=128',
        'model.heads=2',
        'model.mlp=512',
        'data.length=128',
        'train.batch_size=32',
        'tokenizer.kind=wordpiece',
    ),
    'paper': (
        'train.phases=((900_000, 128, 256), (100_000, 512, 256))',
        'tokenizer.kind=wordpiece',
        'tokenizer.vocab_size=30_522',
        'optim.learning_rate=1e-4',
        'optim.warmup=10_000',
    ),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small, which pretrains ten times as long, or paper."""
    rows = [
        ablation.pretraining('BERT', arg),
        ablation.pretraining('no NSP', arg, ('task.next=none',), rows='single'),
        ablation.pretraining(
            'left to right, no NSP', arg, AS_BERT[ablation.shape(arg)], model='gpt', rows='joined'
        ),
        ablation.pretraining('sentence order', arg, ('task.next=swap',), rows='order'),
    ]
    columns = ablation.uses(USES, arg)
    return ablation.table('BERT, table 5', rows, columns, PUBLISHED)
