"""GLUE scores by model size, for the BERT miniatures (Turc et al. 2019).

python -m bert_jax.bin.table --config=configs/tables/miniatures.py --config.text=novels_en.txt.gz
python -m bert_jax.bin.table --config=configs/tables/miniatures.py:paper --config.checkpoints.tiny=DIR \
    --config.checkpoints.mini=DIR --config.checkpoints.small=DIR --config.checkpoints.medium=DIR

By default, pretrains the two smallest sizes for a few minutes and fine-tunes them; the table takes half an hour on two
CPU cores. `:paper` fine-tunes the four published models, converted with bert_jax.bin.convert. The published scores are
from the test sets, each with the best of 24 combinations of batch size and learning rate; ours are from the development
sets, with one learning rate. --config.text is the pretraining text, by default the Python documentation (pydocs/text).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import ablation, bert_table1

# Test scores by model size, for MNLI, QQP, QNLI, SST-2, CoLA, STS-B, MRPC and RTE, in this order.
PUBLISHED = {
    'tiny': (70.2, 62.2, 81.5, 83.2, 0.0, 73.6, 81.1, 57.2),
    'mini': (74.8, 66.4, 84.1, 85.9, 0.0, 73.3, 81.1, 57.9),
    'small': (77.6, 68.1, 86.4, 89.7, 27.8, 77.0, 83.4, 61.8),
    'medium': (80.0, 69.6, 87.7, 89.6, 38.0, 78.4, 86.6, 62.2),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini (pretrains the two smallest sizes briefly) or paper (starts from converted checkpoints)."""
    check_argument(arg, ('mini', 'paper'))
    if arg == 'mini':
        rows = [
            ablation.pretraining(size, arg, (f'model.size={size}', 'model.width=0'))
            for size in ('tiny', 'mini')
        ]
    else:
        rows = [dict(name=size, checkpoint=f'{{{size}}}') for size in PUBLISHED]
    published = {row['name']: PUBLISHED[row['name']] for row in rows}
    description = bert_table1.DESCRIPTION.format('Turc et al. 2019, the best of 24 settings')
    config = ablation.table('BERT miniatures: GLUE', rows, bert_table1.columns(arg), published, description)
    config.transposed = True
    if arg != 'mini':
        config.checkpoints = {size: f'runs/bert_{size}' for size in PUBLISHED}
    return config
