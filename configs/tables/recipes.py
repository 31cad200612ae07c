"""Three recipes of pretraining at equal CPU time, each with AdamW and with Muon: BERT, BERT with new blocks, ModernBERT.

python -m bert_jax.bin.table --config=configs/tables/recipes.py --jobs=2 \
    --config.text=encyclopedia_en.txt.gz,dialogue_en.txt.gz

Each run pretrains a model of 4 layers, 128 wide, for four minutes of one core of an Intel Xeon (Sapphire Rapids): its number
of steps follows from the speed of its recipe there. `:rates` compares learning rates in two minutes each. Expect losses from
6.5 for BERT to 4.6 for ModernBERT with Muon (docs/results/pretraining_recipes.md). The table takes about an hour and a half on
two cores.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.tables import ablation

# Steps per second on one core, and the learning rates of `:rates`, the best first.
OPTIMIZERS = {
    ('BERT', 'AdamW'): (3.4, (1e-3, 5e-4, 2e-3)),
    ('BERT', 'Muon'): (3.15, (2e-3, 1e-3)),
    ('BERT, new blocks', 'AdamW'): (3.2, (2e-3, 1e-3)),
    ('BERT, new blocks', 'Muon'): (3.0, (2e-3, 4e-3)),
    ('ModernBERT', 'AdamW'): (3.0, (2e-3, 4e-3)),
    ('ModernBERT', 'Muon'): (2.8, (2e-3, 4e-3)),
}
# With AdamW, a recipe is tested against the one before it; with Muon, against itself with AdamW.
BEFORE = {'BERT, new blocks': 'BERT', 'ModernBERT': 'BERT, new blocks'}
COMMON = (
    'data.sources={text}',
    'model.width=128',
    'model.heads=2',
    'tokenizer.vocab_size=8192',
    'optim.warmup=0.05',
    'optim.b2=0.98',
    'train.log_every=50',
    'train.eval_every=0',
    'train.eval_rows=1024',
    'checkpoint.every=1.0',
)
BERT = (
    'data.rows_dir={workdir}/rows/pairs',
    'model.mlp_width=512',
    'model.dtype=float32',
    'optim.bias_correction=true',
    'train.phases=()',
    'train.batch_size=32',
)
NEW_BLOCKS = (
    'model.norm_placement=pre',
    'model.rope_base=10_000.0',
    'model.dropout=0.0',
    'model.attention_dropout=0.0',
)
FINE_TUNING = (
    'data.limit=3000',
    'optim.learning_rate=3e-4',
    'train.steps="2 epochs"',
    'train.length_buckets=3',
    'train.eval_every=0',
    'checkpoint.every=1.0',
)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, or rates to compare learning rates."""
    check_argument(arg, ('mini', 'rates'))
    config = new_config()
    config.title = 'Recipes of pretraining at equal CPU time'
    config.description = (
        'Loss: masked-LM loss on held-out documents, 15 % masked. BLiMP: minimal pairs, 50 of each of 67 phenomena, percent. '
        'Accuracy on SST-2 and parts of speech, F1 of entities: percent, fine-tuned on 3,000 examples.'
    )
    if arg == 'rates':
        config.rows = tuple(
            _row(f'{recipe}, {optimizer}, {rate:g}', recipe, optimizer, rate, 120)
            for (recipe, optimizer), (_, rates) in OPTIMIZERS.items()
            for rate in rates
        )
        config.columns = (ablation.masked_loss(),)
        return config
    config.rows = tuple(
        dict(
            _row(f'{recipe}, {optimizer}', recipe, optimizer, rates[0], 240),
            baseline=f'{recipe if optimizer == "Muon" else BEFORE.get(recipe, "")}, AdamW'.removeprefix(
                ', AdamW'
            ),
        )
        for (recipe, optimizer), (_, rates) in OPTIMIZERS.items()
    )
    config.columns = (ablation.masked_loss(), *_columns())
    config.seeds = 3
    config.x_label = 'recipe'
    return config


def _row(name: str, recipe: str, optimizer: str, rate: float, seconds: float) -> dict:
    """Return the pretraining run of a recipe for some seconds of one core."""
    steps = round(OPTIMIZERS[recipe, optimizer][0] * seconds)
    settings = [*COMMON, f'optim.name={optimizer.lower()}', f'optim.learning_rate={rate}']
    if optimizer == 'Muon':
        settings.append('optim.muon_rms=1.0')
    if recipe == 'ModernBERT':
        config = 'cpu.py:modern'
        settings += ['data.rows_dir={workdir}/rows/packed', ablation.growing_batch(steps), 'optim.decay=0.2']
    else:
        config = 'bert.py:mini'
        settings += [*BERT, f'train.steps={steps}', *(NEW_BLOCKS if recipe != 'BERT' else ())]
    return dict(
        name=name,
        x=recipe,
        series=optimizer,
        config=f'configs/pretrain/{config}',
        settings=tuple(settings),
    )


def _columns() -> list[dict]:
    tuned = (
        ('SST-2', 'glue.py:sst2', 'accuracy'),
        ('tags', 'pos.py:en_ewt', 'accuracy'),
        ('entities', 'ner.py:en', 'entity_f1'),
    )
    return [
        ablation.blimp('mini'),
        *(
            dict(
                name=name,
                config=f'configs/finetune/{file}',
                score=score,
                settings=FINE_TUNING,
                format='percent',
            )
            for name, file, score in tuned
        ),
    ]
