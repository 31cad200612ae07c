"""BERT, table 8: what masked positions become, in percent [MASK], same, random; and how many are masked (Wettig et al. 2023).

python -m bert_jax.bin.table --config=configs/tables/bert_table8.py --workdir=runs/bert_table8 --jobs=2 --config.text=novels_en.txt.gz
"""

from ml_collections import ConfigDict

from configs.tables import ablation

# MNLI, NER fine-tuned and feature-based, on the development sets.
PUBLISHED = {
    (80, 10, 10): (84.2, 95.4, 94.9),
    (100, 0, 0): (84.3, 94.9, 94.0),
    (80, 0, 20): (84.1, 95.2, 94.6),
    (80, 20, 0): (84.4, 95.2, 94.7),
    (0, 20, 80): (),
    (0, 0, 100): (83.6, 94.9, 94.6),
}
RATES = (0.3, 0.5)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small, which pretrains ten times as long, or paper."""
    rows = [
        ablation.pretraining(_name(*mix), arg, (f'task.mask={mix[0] / 100}', f'task.random={mix[2] / 100}'))
        for mix in PUBLISHED
    ]
    rows += [
        ablation.pretraining(f'{rate:.0%} masked instead of 15%', arg, (f'task.mask_rate={rate}',))
        for rate in RATES
    ]
    columns = ablation.uses(('MNLI', 'NER', 'NER, features'), arg)
    published = {_name(*mix): numbers for mix, numbers in PUBLISHED.items()}
    return ablation.table('BERT, table 8', rows, columns, published)


def _name(mask: int, same: int, random: int) -> str:
    return f'{mask} / {same} / {random}'
