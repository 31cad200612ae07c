"""Functions of the tables of BERT's ablations (Devlin et al. 2019, section 5).

In each of these tables, a row is a pretraining run with the same number of steps, and a column fine-tunes its model.
"""

from ml_collections import ConfigDict

RATE = 'optim.learning_rate=3e-4'
# Name: config, score, and settings for `mini`, which uses nli_small in place of MNLI.
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
    """The size of models and data for an argument: those of small are the same as of mini."""
    return 'paper' if arg == 'paper' else 'mini'


def fine_tunings(names: tuple[str, ...], arg: str) -> list[dict]:
    """One fine-tuning column for each of these tasks; `arg` is mini, small or paper."""
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
    """A row of the table: one pretraining run.

    Args:
      name: name of the row.
      arg: mini, small or paper.
      settings: additional config overrides.
      model: bert or gpt.
      rows_dir: name of the folder for prepared training rows; pretraining runs on the same rows share it.
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
    description: str = 'Accuracy on GLUE (the small sizes use nli_small in place of MNLI), F1 on SQuAD and named entities. '
    'Published: Devlin et al. 2019. Ours: mean ± standard deviation (number of runs).',
) -> ConfigDict:
    """The config of a table; `published` maps a row to its published scores, in the order of the columns."""
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
