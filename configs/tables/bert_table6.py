"""BERT, table 6: does size help?

python -m bert_jax.bin.table --config=configs/tables/bert_table6.py --workdir=runs/bert_table6 --jobs=2 --config.text=novels_en.txt.gz
"""

from ml_collections import ConfigDict

from configs.tables import ablation

# Layers, width, heads: perplexity of the masked LM; MNLI, MRPC, SST-2 on the development sets.
PUBLISHED = {
    (3, 768, 12): (5.84, 77.9, 79.8, 88.4),
    (6, 768, 3): (5.24, 80.6, 82.2, 90.7),
    (6, 768, 12): (4.68, 81.9, 84.8, 91.3),
    (12, 768, 12): (3.99, 84.4, 86.7, 92.9),
    (12, 1024, 16): (3.54, 85.7, 86.9, 93.3),
    (24, 1024, 16): (3.23, 86.6, 87.8, 93.7),
}
MINI = ((1, 64, 1), (2, 64, 1), (2, 128, 2), (4, 128, 2), (4, 192, 3))


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small, which pretrains ten times as long, or paper."""
    shapes = {'mini': MINI, 'paper': tuple(PUBLISHED)}[ablation.shape(arg)]
    rows = [
        ablation.pretraining(
            _name(layers, width, heads),
            arg,
            (
                f'model.layers={layers}',
                f'model.width={width}',
                f'model.heads={heads}',
                f'model.mlp={4 * width}',
            ),
        )
        for layers, width, heads in shapes
    ]
    perplexity = dict(name='perplexity', score='mlm_loss', shown='exp', of='pretraining')
    columns = [perplexity, *ablation.uses(('MNLI', 'MRPC', 'SST-2'), arg)]
    published = {_name(*shape): numbers for shape, numbers in PUBLISHED.items() if shape in shapes}
    return ablation.table('BERT, table 6', rows, columns, published)


def _name(layers: int, width: int, heads: int) -> str:
    return f'{layers} layers, {width} wide, {heads} heads'
