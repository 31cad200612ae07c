"""BART, table 1 (Lewis et al. 2020): pretraining objectives compared with the same architecture and number of steps.

python -m bert_jax.bin.table --config=configs/tables/bart_table1.py --jobs=2 --config.text=novels_en.txt.gz

By default, a BART has 2 + 2 layers of width 128 (the BERT and the GPT have 4), and the table takes 5.5 hours of CPU
time with two seeds. `:paper` has the base size of the paper and one million steps, which need accelerators. Other tasks
replace those of the paper: nli_small replaces MNLI, 2,000 questions replace all of SQuAD, and DialogSum replaces
CNN/DM. For summaries, expect every objective to be far better than no pretraining, and small differences between the
objectives (docs/results/noise_functions.md).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import ablation

NO_PRETRAINING = 'no pretraining'
NLI, SQUAD, SUMMARIES = 'NLI', 'SQuAD F1', 'summaries, perplexity'
# By column: config, score, format, data of the published score.
COLUMNS = {
    NLI: ('xnli.py', 'accuracy', 'percent', 'MNLI'),
    SQUAD: ('squad.py:v1.1', 'f1', '', ''),
    SUMMARIES: ('seq2seq.py:dialogsum', 'target_loss', 'exp', 'CNN/DM'),
}
# By row: MNLI accuracy, SQuAD F1, CNN/DM perplexity.
PUBLISHED = {
    'masked LM': (83.5, 90.0, 7.06),
    'masked seq2seq (MASS)': (82.1, 87.0, 6.19),
    'language model': (80.1, 76.7, 6.56),
    'token masking': (84.1, 90.4, 6.10),
    'token deletion': (84.1, 90.4, 5.87),
    'text infilling': (84.0, 90.8, 5.83),
    'document rotation': (75.3, 77.2, 10.59),
    'sentence shuffling': (81.5, 85.4, 7.89),
    'infilling + shuffling': (83.8, 90.8, 5.41),
}
# task.noise and task.rate.
NOISE = {
    'masked seq2seq (MASS)': ("'masked_seq2seq'", 0.5),
    'token masking': ("'mask'", 0.15),
    'token deletion': ("'delete'", 0.15),
    'text infilling': ("'infill'", 0.3),
    'document rotation': ("'rotate'", 0.0),
    'sentence shuffling': ("'permute'", 0.0),
    'infilling + shuffling': ("'permute','infill'", 0.3),
    NO_PRETRAINING: ("'mask'", 0.15),
}
MINI = dict(
    models=('cpu.py tiny', 'cpu_gpt.py tiny', 'cpu_bart.py tiny'),
    layers=2,
    pretraining=(
        'data.length=128',
        'tokenizer.kind=bpe',
        'tokenizer.vocab_size=8192',
        'train.batch_size=32',
        'train.steps=1000',
        *ablation.BUDGET,
    ),
    fine_tuning=(
        ablation.RATE,
        ablation.BUCKETS,
        'train.eval_every=0',
        'train.log_every=50',
        'checkpoint.every=1.0',
    ),
    tasks={
        NLI: ('data.limit=15_000', 'train.steps="1 epochs"'),
        SQUAD: ablation.SQUAD,
        SUMMARIES: ('data.limit=2000', 'train.steps="2 epochs"', 'data.length=256'),
    },
)
PAPER = dict(
    models=('bert.py base', 'gpt.py small', 'bart.py base'),
    layers=6,
    pretraining=(
        'data.length=512',
        'tokenizer.kind=bpe',
        'tokenizer.vocab_size=50_265',
        'train.phases=()',
        'train.batch_size=256',
        'train.steps=1_000_000',
        'optim.learning_rate=4e-4',
    ),
    fine_tuning=('optim.learning_rate=3e-5',),
    tasks={},
)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper (the published size and number of steps)."""
    check_argument(arg, ('mini', 'paper'))
    scale: dict = {'mini': MINI, 'paper': PAPER}[arg]
    rows = [_row(name, scale) for name in (*PUBLISHED, NO_PRETRAINING)]
    columns = [
        dict(
            name=name,
            config=f'configs/finetune/{file}',
            score=score,
            format=format,
            published_name=published_name,
            settings=(*scale['fine_tuning'], *scale['tasks'].get(name, ())),
        )
        for name, (file, score, format, published_name) in COLUMNS.items()
    ]
    description = (
        'Published: Lewis et al. 2020, base size. Ours: sizes and data of the config; mean ± standard deviation '
        '(number of runs).'
    )
    config = ablation.table('BART, table 1: pretraining objectives', rows, columns, PUBLISHED, description)
    config.seeds = 2
    return config


def _row(name: str, scale: dict) -> dict:
    row: dict = dict(name=name)
    bert, gpt, bart = (model.split() for model in scale['models'])
    if name == 'masked LM':
        (file, size), layers, settings = bert, 2 * scale['layers'], ['task.sentence_objective=none']
        row['skipped_columns'] = {SUMMARIES: 'an encoder cannot generate'}
    elif name == 'language model':
        (file, size), layers, settings = gpt, 2 * scale['layers'], []
        row['column_settings'] = {SUMMARIES: ('task.decoder_only=true',)}
    else:
        noise, rate = NOISE[name]
        (file, size), layers = bart, scale['layers']
        settings = [f'task.noise=({noise},)', f'task.rate={rate}']
    row['config'] = f'configs/pretrain/{file}'
    settings += [f'model.size={size}', f'model.layers={layers}', 'data.sources={text}']
    settings += [f'data.rows_dir={{workdir}}/rows/{file.removesuffix(".py")}', *scale['pretraining']]
    if name == NO_PRETRAINING:  # one step, only to write a checkpoint of this architecture
        row['weights'] = 'random'
        settings += ['train.steps=1', 'optim.warmup=0']
    return {**row, 'settings': tuple(settings)}
