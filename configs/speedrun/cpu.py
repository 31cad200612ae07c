"""Speedrun: the least time on two CPU cores to a masked-LM loss of 4.7, with the text, tokenizer and model width fixed.

python -m bert_jax.bin.table --config=configs/speedrun/cpu.py --workdir=runs/speedrun \
    --config.text=encyclopedia_en.txt.gz,dialogue_en.txt.gz
python -m bert_jax.bin.table --config=configs/speedrun/cpu.py:ideas --workdir=runs/speedrun_ideas --jobs=2 \
    --config.text=encyclopedia_en.txt.gz,dialogue_en.txt.gz

Each record adds one change to the one before. It counts if the mean of three seeds is below 4.7 with p < 0.01, and its time
below that of the record before with p < 0.01. The loss is that of eval_lm on the same held-out rows and masks for all, 15 %
masked. Run records alone on the machine, without --jobs: their time is measured. No record has been run. `:ideas` changes
ModernBERT with AdamW at 2 million tokens; with one seed, --config.seeds=1, Muon, QK-norm and a batch of 16 rows lower the loss
(docs/guides/recipes.md).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.tables import ablation

TARGET = 4.7
COMMON = (
    'data.sources={text}',
    'model.width=128',
    'model.heads=2',
    'tokenizer.vocab_size=8192',
    'optim.b2=0.98',
    'train.log_every=50',
    'train.eval_every=0',
    'train.eval_rows=1024',
    'checkpoint.every=1.0',
)
PUBLISHED = (
    'model.mlp_width=512',
    'model.dtype=float32',
    'optim.bias_correction=true',
    'optim.learning_rate=1e-3',
)
NEW_BLOCKS = (
    'model.norm_placement=pre',
    'model.rope_base=10_000.0',
    'model.dropout=0.0',
    'model.attention_dropout=0.0',
    'optim.learning_rate=2e-3',
)
ADAMW = ('optim.name=adamw', 'optim.learning_rate=2e-3', 'optim.warmup=0.05', 'optim.decay=0.2')
MUON = ('optim.name=muon', 'optim.muon_rms=1.0', *ADAMW[1:])
# By record, the first to the last: config, settings, steps of 32 rows of 128 tokens. BERT as published has 20 minutes.
RECORDS = {
    'BERT': ('bert.py:mini', (*PUBLISHED, 'optim.warmup=0.1'), 4800),
    'pre-norm, rotary positions, no dropout': (
        'bert.py:mini',
        (*PUBLISHED, *NEW_BLOCKS, 'optim.warmup=0.05'),
        1800,
    ),
    'ModernBERT': ('cpu.py:modern', ADAMW, 800),
    'Muon': ('cpu.py:modern', MUON, 650),
}
# Ideas are changes of ModernBERT with AdamW, in 500 steps. By idea: what it changes, the share of tokens that are masked, and
# the number of rows in a batch, with which the number of steps changes.
STEPS, BASE = 500, 'ModernBERT'
QK_NORM = 'model.qk_norm=true'
IDEAS = {
    'Muon': (MUON, 0.3, 32),
    'Muon, updates half as large': ((*MUON, 'optim.muon_rms=0.5'), 0.3, 32),
    'QK-norm': ((QK_NORM,), 0.3, 32),
    '16 rows': ((), 0.3, 16),
    'Muon, 16 rows': (MUON, 0.3, 16),
    'Muon, 16 rows, QK-norm': ((*MUON, QK_NORM), 0.3, 16),
    'Muon, 8 rows, QK-norm': ((*MUON, QK_NORM), 0.3, 8),
    '8 rows, QK-norm': ((QK_NORM,), 0.3, 8),
    'zero-init projections': (('model.zero_residual_init=true',), 0.3, 32),
    'ReLU² without gates': (
        ('model.activation=relu_squared', 'model.gated_mlp=false', 'model.mlp_width=384'),
        0.3,
        32,
    ),
    'all layers global': (('model.window=0',), 0.3, 32),
    'no dense layer in the head': (('model.masked_lm_transform=false',), 0.3, 32),
    'initial weights twice as large': (('model.init_std=0.04',), 0.3, 32),
    '15 % masked': ((), 0.15, 32),
    '40 % masked': ((), 0.4, 32),
    'only [MASK]': (('task.mask_fraction=1.0', 'task.random_fraction=0.0'), 0.3, 32),
    'half of the steps in the decay': (('optim.decay=0.5',), 0.3, 32),
    'linear decay': (('optim.schedule=linear', 'optim.decay_shape=linear'), 0.3, 32),
    'faster second moments': (('optim.b2=0.95',), 0.3, 32),
}


def get_config(arg: str = 'records') -> ConfigDict:
    """`arg` is records, or ideas (changes of ModernBERT)."""
    check_argument(arg, ('records', 'ideas'))
    config = new_config()
    config.title = 'Speedrun on two CPU cores'
    config.description = 'Loss: nats per token, 15 % masked. Mean ± standard deviation (number of runs).'
    config.seeds = 3
    if arg == 'ideas':
        config.baseline = BASE
        file, settings, _ = RECORDS[BASE]
        ideas = {BASE: ((), 0.3, 32), **IDEAS}
        config.rows = tuple(
            _row(name, file, (*settings, *changes, _phases(rate, rows)), 'packed')
            for name, (changes, rate, rows) in ideas.items()
        )
        config.columns = (ablation.masked_loss(),)
        return config
    config.columns = (
        ablation.masked_loss() | {'target': TARGET},
        dict(name='minutes', source_column='pretraining', score='training_minutes'),
    )
    config.rows = tuple(
        _row(name, file, (*settings, *_steps(file, steps)), 'pairs' if file.startswith('bert') else 'packed')
        | {'baseline': before}
        for (name, (file, settings, steps)), before in zip(RECORDS.items(), ('', *RECORDS), strict=False)
    )
    return config


def _row(name: str, file: str, settings: tuple[str, ...], rows: str) -> dict:
    rows_dir = f'data.rows_dir={{workdir}}/rows/{rows}'
    return dict(name=name, config=f'configs/pretrain/{file}', settings=(*COMMON, rows_dir, *settings))


def _steps(file: str, steps: int) -> tuple[str, ...]:
    if file.startswith('bert'):
        return 'train.phases=()', 'train.batch_size=32', f'train.steps={steps}'
    return (ablation.growing_batch(steps),)


def _phases(mask_rate: float, rows: int) -> str:
    """Return the phases of an idea; batches of fewer than 32 rows do not grow, and read 6 % fewer tokens."""
    if rows == 32:
        return ablation.growing_batch(STEPS, mask_rate)
    steps = (STEPS - STEPS // 8 // 2) * 32 // rows
    return f"train.phases=(({steps}, 128, {rows}, 'task.mask_rate={mask_rate}'),)"
