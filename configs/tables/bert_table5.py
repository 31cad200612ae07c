"""BERT, table 5: ablation of the pretraining tasks, with sentence order (Lan et al. 2020) as an additional task.

python -m bert_jax.bin.table --config=configs/tables/bert_table5.py --jobs=2 --config.text=novels_en.txt.gz

By default, takes about half an hour on two CPU cores. `:small` has ten times as many pretraining steps, `:paper` the
published settings, which need accelerators. After such short pretraining, left-to-right prediction does better than
masking, and next-sentence prediction does not help (docs/results/pretraining_ablations.md). --config.text is the
pretraining text, by default the Python documentation (pydocs/text).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import ablation

TASKS = ('MNLI', 'QNLI', 'MRPC', 'SST-2', 'SQuAD')
# Scores of TASKS on the development sets.
PUBLISHED = {
    'BERT': (84.4, 88.4, 86.7, 92.7, 88.5),
    'no NSP': (83.9, 84.9, 86.5, 92.6, 87.9),
    'left to right, no NSP': (82.1, 84.3, 77.5, 92.1, 77.8),
}
# Settings that give a GPT the shape, rows, vocabulary and learning rates of the BERT.
GPT_LIKE_BERT = {
    'mini': (
        'model.width=128',
        'model.heads=2',
        'model.mlp_width=512',
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
    """`arg` is mini, small (ten times as many pretraining steps) or paper (the published settings)."""
    check_argument(arg, (*ablation.STEPS, 'paper'))
    gpt = GPT_LIKE_BERT[ablation.shape(arg)]
    rows = [
        ablation.pretraining('BERT', arg),
        ablation.pretraining('no NSP', arg, ('task.sentence_objective=none',), rows_dir='single'),
        ablation.pretraining('left to right, no NSP', arg, gpt, model='gpt', rows_dir='joined'),
        ablation.pretraining('sentence order', arg, ('task.sentence_objective=swap',), rows_dir='order'),
    ]
    columns = [ablation.blimp(arg), *ablation.fine_tunings(TASKS, arg)]
    return ablation.table('BERT, table 5: pretraining tasks', rows, columns, PUBLISHED)
