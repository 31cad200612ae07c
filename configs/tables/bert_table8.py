"""BERT, table 8: shares of [MASK], unchanged and random tokens; also masking rates (Wettig et al. 2023).

python -m bert_jax.bin.table --config=configs/tables/bert_table8.py --jobs=2 --config.text=novels_en.txt.gz

By default, takes about half an hour on two CPU cores. `:small` has ten times as many pretraining steps, `:paper` the
published settings, which need accelerators. After such short pretraining, a masking rate of 30 % does better than 15 %
(docs/results/pretraining_ablations.md). --config.text is the pretraining text, by default the Python documentation
(pydocs/text).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import ablation

# Percent [MASK], unchanged, random: MNLI, NER fine-tuned, NER from features, on the development sets.
PUBLISHED = {
    (80, 10, 10): (84.2, 95.4, 94.9),
    (100, 0, 0): (84.3, 94.9, 94.0),
    (80, 0, 20): (84.1, 95.2, 94.6),
    (80, 20, 0): (84.4, 95.2, 94.7),
    (0, 20, 80): (83.7, 94.8, 94.6),
    (0, 0, 100): (83.6, 94.9, 94.6),
}
RATES = (0.3, 0.5)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small (ten times as many pretraining steps) or paper (the published settings)."""
    check_argument(arg, (*ablation.STEPS, 'paper'))
    rows = [
        ablation.pretraining(
            _name(*shares),
            arg,
            (f'task.mask_fraction={shares[0] / 100}', f'task.random_fraction={shares[2] / 100}'),
        )
        for shares in PUBLISHED
    ]
    rows += [
        ablation.pretraining(f'masking rate {rate:.0%} instead of 15%', arg, (f'task.mask_rate={rate}',))
        for rate in RATES
    ]
    columns = [ablation.blimp(arg), *ablation.fine_tunings(('MNLI', 'NER', 'NER, features'), arg)]
    published = {_name(*shares): scores for shares, scores in PUBLISHED.items()}
    return ablation.table('BERT, table 8: masking', rows, columns, published)


def _name(mask: int, unchanged: int, random: int) -> str:
    return f'{mask} / {unchanged} / {random}'
