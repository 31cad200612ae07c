"""What the ablations of BERT share: a pretraining of each way at the same budget, then some uses (Devlin et al. 2019, section 5)."""

from ml_collections import ConfigDict

RATE = 'optim.learning_rate=3e-4'
# The uses, with their shortened forms on two cores, where nli_small stands for MNLI.
USES = {
    'MNLI': (
        'configs/finetune/glue.py:mnli',
        'accuracy',
        (RATE, 'data.limit=10_000', 'train.steps="2 epochs"'),
    ),
    'QNLI': (
        'configs/finetune/glue.py:qnli',
        'accuracy',
        (RATE, 'data.limit=10_000', 'train.steps="2 epochs"'),
    ),
    'MRPC': ('configs/finetune/glue.py:mrpc', 'accuracy', (RATE, 'train.steps="3 epochs"')),
    'SST-2': (
        'configs/finetune/glue.py:sst2',
        'accuracy',
        (RATE, 'data.limit=10_000', 'train.steps="2 epochs"'),
    ),
    'SQuAD': (
        'configs/finetune/squad.py:v1.1',
        'f1',
        (RATE, 'data.limit=2000', 'train.steps="2 epochs"', 'train.eval_rows=1000', 'data.length=256'),
    ),
    'NER': ('configs/finetune/ner.py:en', 'entity_f1', (RATE, 'data.limit=5000', 'train.steps="2 epochs"')),
    'NER, features': (
        'configs/finetune/ner.py:en,concat_last_four',
        'entity_f1',
        ('data.limit=5000', 'train.steps="2 epochs"'),
    ),
}
BINS = 'train.bins=3'  # few lengths, which take long to compile
# Updates of pretraining on two cores.
STEPS = {'mini': 800, 'small': 8000}
BUDGET = (
    'train.eval_every=0',
    'train.eval_rows=512',
    'train.log_every=50',
    'checkpoint.every=1.0',
)
PAPER_BUDGET = ('train.eval_every=0',)


def shape(arg: str) -> str:
    """Whose shapes `arg` has: small is mini pretrained ten times as long."""
    return 'paper' if arg == 'paper' else 'mini'


def uses(names: tuple[str, ...], arg: str) -> list[dict]:
    """Columns of these uses; `arg` is mini, small or paper."""
    mini = shape(arg) == 'mini'
    return [
        dict(
            name=name,
            config='configs/finetune/xnli.py' if mini and name == 'MNLI' else config,
            score=score,
            shown='' if score == 'f1' else 'percent',
            settings=('train.eval_every=0', 'checkpoint.every=1.0', *((BINS, *short) if mini else ())),
        )
        for name, (config, score, short) in ((n, USES[n]) for n in names)
    ]


def pretraining(
    name: str, arg: str, settings: tuple[str, ...] = (), model: str = 'bert', rows: str = 'pairs'
) -> dict:
    """A row; `model` is bert or gpt, `rows` the folder of prepared rows, which alike ones share."""
    files = {
        'mini': {'bert': 'cpu.py', 'gpt': 'cpu_gpt.py'},
        'paper': {'bert': 'bert.py:base', 'gpt': 'gpt.py:small'},
    }
    config = f'configs/pretrain/{files[shape(arg)][model]}'
    common = ('data.sources={text}', f'data.rows={{workdir}}/rows/{rows}')
    budget = PAPER_BUDGET if arg == 'paper' else (f'train.steps={STEPS[arg]}', *BUDGET)
    return dict(name=name, config=config, settings=(*common, *budget, *settings))


def table(
    title: str,
    rows: list[dict],
    columns: list[dict],
    published: dict,
    about: str = 'GLUE accuracy (in the mini form nli_small for MNLI), SQuAD and NER F1. '
    'Published: Devlin et al. 2019. Own: mean ± standard deviation (runs).',
) -> ConfigDict:
    """A config; `published` has for each row the numbers of the columns, in order."""
    config = ConfigDict()
    config.title, config.about = title, about
    config.seeds, config.text = 1, 'pydocs/text'
    config.rows, config.columns = tuple(rows), tuple(columns)
    names = [column['name'] for column in columns]
    config.published = {
        row: {name: float(n) for name, n in zip(names, numbers, strict=False)}
        for row, numbers in published.items()
    }
    return config
