"""What to break: table 1 of BART (Lewis et al. 2020), one architecture and budget for each way of pretraining.

python -m bert_jax.bin.table --config=configs/tables/bart_table1.py --workdir=runs/bart_table1 --jobs=2 \
    --config.text=novels_en.txt.gz

At the size of two cores: 2 + 2 layers of 128 (4 of them without a second half), and a budget of minutes. `:paper` has the
paper's base size and one million updates. The fine-tunings stand in for those of the paper: nli_small for MNLI,
2,000 questions for SQuAD, the perplexity of DialogSum's summaries for that of CNN/DM's.
"""

from ml_collections import ConfigDict

NOTHING = 'no pretraining'
NLI, SQUAD, SUMMARIES = 'NLI', 'SQuAD F1', 'summaries, perplexity'
# SQuAD F1, MNLI accuracy, CNN/DM perplexity.
PUBLISHED = {
    'masked LM': (90.0, 83.5, 7.06),
    'masked seq2seq (MASS)': (87.0, 82.1, 6.19),
    'language model': (76.7, 80.1, 6.56),
    'token masking': (90.4, 84.1, 6.10),
    'token deletion': (90.4, 84.1, 5.87),
    'text infilling': (90.8, 84.0, 5.83),
    'document rotation': (77.2, 75.3, 10.59),
    'sentence shuffling': (85.4, 81.5, 7.89),
    'infilling + shuffling': (90.8, 83.8, 5.41),
}
NOISE = {
    'masked seq2seq (MASS)': ("'mass'", 0.5),
    'token masking': ("'mask'", 0.15),
    'token deletion': ("'delete'", 0.15),
    'text infilling': ("'infill'", 0.3),
    'document rotation': ("'rotate'", 0.0),
    'sentence shuffling': ("'permute'", 0.0),
    'infilling + shuffling': ("'permute','infill'", 0.3),
    NOTHING: ("'mask'", 0.15),
}
MINI = dict(
    models=('cpu.py tiny', 'cpu_gpt.py tiny', 'cpu_bart.py tiny'),
    layers=2,
    common=(
        'data.length=128',
        'tokenizer.kind=bpe',
        'tokenizer.vocab_size=8192',
        'train.batch_size=32',
        'train.steps=1000',
        'train.eval_every=0',
        'train.eval_rows=512',
        'train.log_every=50',
        'checkpoint.every=1.0',
    ),
    tune=(
        'optim.learning_rate=3e-4',
        'train.bins=3',  # few lengths, which take long to compile
        'train.eval_every=0',
        'train.log_every=50',
        'checkpoint.every=1.0',
    ),
    nli=('data.limit=15_000', 'train.steps="1 epochs"'),
    squad=('data.limit=2000', 'train.steps="2 epochs"', 'train.eval_rows=1000', 'data.length=256'),
    summaries=('data.limit=2000', 'train.steps="2 epochs"', 'data.length=256'),
)
PAPER = dict(
    models=('bert.py base', 'gpt.py small', 'bart.py base'),
    layers=6,
    common=(
        'data.length=512',
        'tokenizer.kind=bpe',
        'tokenizer.vocab_size=50_265',
        'train.phases=()',
        'train.batch_size=256',
        'train.steps=1_000_000',
        'optim.learning_rate=4e-4',
    ),
    tune=('optim.learning_rate=3e-5',),
    nli=(),
    squad=(),
    summaries=(),
)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    scale: dict = {'mini': MINI, 'paper': PAPER}[arg]
    config = ConfigDict()
    config.title = 'BART, table 1'
    config.about = (
        'Published: Lewis et al. 2020, base size. Own: see the config; mean ± standard deviation (runs).'
    )
    config.seeds = 2
    config.text = 'pydocs/text'
    config.rows = (*(_row(name, scale) for name in PUBLISHED), _row(NOTHING, scale))
    config.columns = (
        dict(
            name=NLI,
            config='configs/finetune/xnli.py',
            score='accuracy',
            shown='percent',
            settings=scale['tune'] + scale['nli'],
            published='MNLI',
        ),
        dict(
            name=SQUAD,
            config='configs/finetune/squad.py:v1.1',
            score='f1',
            settings=scale['tune'] + scale['squad'],
        ),
        dict(
            name=SUMMARIES,
            config='configs/finetune/seq2seq.py:dialogsum',
            score='target_loss',
            shown='exp',
            settings=scale['tune'] + scale['summaries'],
            published='CNN/DM',
        ),
    )
    config.published = {
        name: {SQUAD: squad, NLI: nli, SUMMARIES: summaries}
        for name, (squad, nli, summaries) in PUBLISHED.items()
    }
    return config


def _row(name: str, scale: dict) -> dict:
    row: dict = dict(name=name)
    bert, gpt, bart = (model.split() for model in scale['models'])
    if name == 'masked LM':
        (file, size), layers, settings = bert, 2 * scale['layers'], ['task.next=none']
        row['skip'] = {SUMMARIES: 'an encoder does not write'}
    elif name == 'language model':
        (file, size), layers, settings = gpt, 2 * scale['layers'], []
        row['also'] = {SUMMARIES: ('task.prefix=true',)}
    else:
        noises, rate = NOISE[name]
        (file, size), layers = bart, scale['layers']
        settings = [f'task.noise=({noises},)', f'task.rate={rate}']
    row['config'] = f'configs/pretrain/{file}'
    settings += [f'model.size={size}', f'model.layers={layers}', 'data.sources={text}']
    settings += [f'data.rows={{workdir}}/rows/{file.removesuffix(".py")}', *scale['common']]
    if name == NOTHING:  # one update, for a checkpoint with the shape
        row['weights'] = 'random'
        settings += ['train.steps=1', 'optim.warmup=0']
    return {**row, 'settings': tuple(settings)}
