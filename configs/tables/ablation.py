"""Shared by the tables of BERT's ablations: one pretraining per row at the same budget, then fine-tunings (Devlin et al. 2019, section 5)."""

from ml_collections import ConfigDict

RATE = 'optim.learning_rate=3e-4'
# Name: config, score, and settings of the mini size, which takes nli_small for MNLI.
TASKS = {
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
BUCKETS = 'train.length_buckets=3'  # compiling for more lengths takes longer than it saves
# Pretraining steps.
STEPS = {'mini': 800, 'small': 8000}
BUDGET = (
    'train.eval_every=0',
    'train.eval_rows=512',
    'train.log_every=50',
    'checkpoint.every=1.0',
)
PAPER_BUDGET = ('train.eval_every=0',)


def shape(arg: str) -> str:
    """The model and data size of `arg`: small is mini with ten times as many pretraining steps."""
    return 'paper' if arg == 'paper' else 'mini'


def fine_tunings(names: tuple[str, ...], arg: str) -> list[dict]:
    """Columns that fine-tune on these tasks; `arg` is mini, small or paper."""
    mini = shape(arg) == 'mini'
    return [
        dict(
            name=name,
            config='configs/finetune/xnli.py' if mini and name == 'MNLI' else config,
            score=score,
            format='' if score == 'f1' else 'percent',
            settings=('train.eval_every=0', 'checkpoint.every=1.0', *((BUCKETS, *short) if mini else ())),
        )
        for name, (config, score, short) in ((n, TASKS[n]) for n in names)
    ]


def pretraining(
    name: str, arg: str, settings: tuple[str, ...] = (), model: str = 'bert', rows_dir: str = 'pairs'
) -> dict:
    """A row of the table.

    Args:
      name: name of the row.
      arg: mini, small or paper.
      settings: config overrides of the pretraining.
      model: bert or gpt.
      rows_dir: folder of the prepared training rows; pretrainings on the same rows share one.
    """
    files = {
        'mini': {'bert': 'cpu.py', 'gpt': 'cpu_gpt.py'},
        'paper': {'bert': 'bert.py:base', 'gpt': 'gpt.py:small'},
    }
    config = f'configs/pretrain/{files[shape(arg)][model]}'
    data = ('data.sources={text}', f'data.rows_dir={{workdir}}/rows/{rows_dir}')
    budget = PAPER_BUDGET if arg == 'paper' else (f'train.steps={STEPS[arg]}', *BUDGET)
    return dict(name=name, config=config, settings=(*data, *budget, *settings))


def table(
    title: str,
    rows: list[dict],
    columns: list[dict],
    published: dict,
    description: str = 'Accuracy on GLUE (the mini size takes nli_small for MNLI), F1 on SQuAD and named entities. '
    'Published: Devlin et al. 2019. Ours: mean ± standard deviation (number of runs).',
) -> ConfigDict:
    """The config of a table; `published` has, for each row, the scores of the first columns."""
    config = ConfigDict()
    config.title, config.description = title, description
    config.seeds, config.text = 1, 'pydocs/text'
    config.rows, config.columns = tuple(rows), tuple(columns)
    names = [column['name'] for column in columns]
    config.published = {
        row: {name: float(score) for name, score in zip(names, scores, strict=False)}
        for row, scores in published.items()
    }
    return config
