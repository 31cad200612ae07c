"""Objectives of pretraining with one encoder and one number of steps: which of them makes the best encoder?

python -m bert_jax.bin.table --config=configs/tables/objectives.py --jobs=2 \
    --config.text=encyclopedia_en.txt.gz,dialogue_en.txt.gz

Each run pretrains a model of 4 layers, 128 wide, with the blocks and the optimizer of cpu.py:modern. BART's noises and MASS
train an encoder-decoder, and have a table of their own (configs/tables/bart_table1.py). This table has not been run.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.tables import ablation

STEPS = {'mini': 1000, 'small': 10_000}
HYBRID = ('task.name=hybrid',)
# By row: settings, and settings of the first phase, which takes a share of the steps.
OBJECTIVES = {
    'masked LM': (('task.mask_rate=0.3',), '', 0.0),
    'replaced tokens': (('task.name=rtd',), '', 0.0),
    'replaced tokens, disentangled embeddings': (
        ('task.name=rtd', 'task.embedding_sharing=disentangled'),
        '',
        0.0,
    ),
    'causal LM': ((*HYBRID, 'task.causal_share=1.0'), '', 0.0),
    'causal, then 75 % masked LM': ((*HYBRID, 'task.causal_share=0.0'), 'task.causal_share=1.0', 0.25),
    'causal, then 50 % masked LM': ((*HYBRID, 'task.causal_share=0.0'), 'task.causal_share=1.0', 0.5),
    'causal, then 25 % masked LM': ((*HYBRID, 'task.causal_share=0.0'), 'task.causal_share=1.0', 0.75),
    'both at once': (HYBRID, '', 0.0),
    'masked diffusion': (('task.diffusion=true',), '', 0.0),
}
NO_LIKELIHOOD = 'no likelihood'


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, or small (ten times as many steps)."""
    check_argument(arg, tuple(STEPS))
    config = new_config()
    config.title = 'Objectives of pretraining'
    config.description = (
        'BLiMP: minimal pairs, 50 of each of 67 phenomena. Bits per byte of held-out text, for masked diffusion an upper bound. '
        'Accuracy on SST-2, nli_small and parts of speech, F1 on SQuAD 1.1. Percent, after fine-tuning; mean ± standard '
        'deviation (number of runs).'
    )
    config.seeds = 3
    config.baseline = 'masked LM'
    config.rows = tuple(_row(name, STEPS[arg]) for name in OBJECTIVES)
    config.columns = (
        ablation.blimp('mini'),
        dict(name='bits per byte', config='configs/eval/lm.py:text', score='bits_per_byte'),
        *ablation.fine_tunings(('SST-2', 'MNLI'), 'mini'),
        dict(
            name='tags',
            config='configs/finetune/pos.py:en_ewt',
            format='percent',
            settings=(
                ablation.RATE,
                *ablation.LIMIT_5K,
                ablation.BUCKETS,
                'train.eval_every=0',
                'checkpoint.every=1.0',
            ),
        ),
        *ablation.fine_tunings(('SQuAD',), 'mini'),
    )
    return config


def _row(name: str, steps: int) -> dict:
    settings, first, share = OBJECTIVES[name]
    start = round(share * steps)
    phases = [(start, 128, 32, first)] * (start > 0) + [(steps - start, 128, 32)]
    skipped = {}
    if not name.startswith(('causal', 'both', 'masked diffusion')):
        skipped['bits per byte'] = NO_LIKELIHOOD
    if name.startswith('replaced'):
        skipped['BLiMP'] = NO_LIKELIHOOD
    column_settings = {
        'causal LM': {'BLiMP': ('eval.likelihood=causal',)},
        'masked diffusion': {'bits per byte': ('eval.kind=diffusion_bound',)},
    }
    return dict(
        name=name,
        config='configs/pretrain/cpu.py:modern',
        settings=(
            'data.sources={text}',
            'data.rows_dir={workdir}/rows',
            f'train.phases={tuple(phases)}',
            'optim.warmup=0.05',
            'optim.decay=0.2',
            *ablation.BUDGET,
            *settings,
        ),
        skipped_columns=skipped,
        column_settings=column_settings.get(name, {}),
    )
