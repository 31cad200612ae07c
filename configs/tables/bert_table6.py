"""BERT, table 6: effect of the model size.

python -m bert_jax.bin.table --config=configs/tables/bert_table6.py --jobs=2 --config.text=novels_en.txt.gz

By default, takes about half an hour on two CPU cores. `:small` has ten times as many pretraining steps, `:paper` the
published settings, which need accelerators. Expect wider models to predict masked tokens better; more depth helps less
(docs/results/pretraining_ablations.md). --config.text is the pretraining text, by default the Python documentation
(pydocs/text).
"""

from ml_collections import ConfigDict

from configs import check_argument
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
    """`arg` is mini, small (ten times as many pretraining steps) or paper (the published settings)."""
    check_argument(arg, (*ablation.STEPS, 'paper'))
    shapes = {'mini': MINI, 'paper': tuple(PUBLISHED)}[ablation.shape(arg)]
    rows = [
        ablation.pretraining(
            _name(layers, width, heads),
            arg,
            (
                f'model.layers={layers}',
                f'model.width={width}',
                f'model.heads={heads}',
                f'model.mlp_width={4 * width}',
            ),
        )
        for layers, width, heads in shapes
    ]
    perplexity = dict(name='perplexity', score='mlm_loss', format='exp', source_column='pretraining')
    columns = [ablation.blimp(arg), perplexity, *ablation.fine_tunings(('MNLI', 'MRPC', 'SST-2'), arg)]
    published = {_name(*shape): scores for shape, scores in PUBLISHED.items() if shape in shapes}
    return ablation.table('BERT, table 6: model size', rows, columns, published)


def _name(layers: int, width: int, heads: int) -> str:
    return f'{layers} layers, width {width}, {heads} heads'
