"""The miniatures of BERT (Turc et al. 2019): GLUE by size.

python launch/table.py configs/tables/miniatures.py --config.text=novels_en.txt.gz
python launch/table.py configs/tables/miniatures.py --scale=paper --config.checkpoints.tiny=DIR --config.checkpoints.mini=DIR \
    --config.checkpoints.small=DIR --config.checkpoints.medium=DIR

The published numbers are of the test sets, the best of 24 batch sizes and rates; own ones of one rate, on the development sets.
"""

from ml_collections import ConfigDict

from configs.tables import ablation, bert_table1

# MNLI, QQP, QNLI, SST-2, CoLA, STS-B, MRPC, RTE.
PUBLISHED = {
    'tiny': (70.2, 62.2, 81.5, 83.2, 0.0, 73.6, 81.1, 57.2),
    'mini': (74.8, 66.4, 84.1, 85.9, 0.0, 73.3, 81.1, 57.9),
    'small': (77.6, 68.1, 86.4, 89.7, 27.8, 77.0, 83.4, 61.8),
    'medium': (80.0, 69.6, 87.7, 89.6, 38.0, 78.4, 86.6, 62.2),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, which pretrains the smaller ones for a few minutes, or paper, from converted checkpoints."""
    if arg == 'mini':
        rows = [
            ablation.pretraining(size, arg, (f'model.size={size}', 'model.width=0'))
            for size in ('tiny', 'mini')
        ]
    else:
        rows = [dict(name=size, checkpoint=f'{{{size}}}') for size in PUBLISHED]
    published = {row['name']: PUBLISHED[row['name']] for row in rows}
    columns = list(bert_table1.columns(arg))
    about = bert_table1.ABOUT.format('Turc et al. 2019, the best of 24 settings')
    config = ablation.table('The miniatures of BERT', rows, columns, published, about)
    config.turned = True
    if arg != 'mini':
        config.checkpoints = {size: f'runs/bert_{size}' for size in PUBLISHED}
    return config
