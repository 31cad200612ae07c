"""Helper functions for several tables, mainly BERT's ablations (Devlin et al. 2019, section 5).

In the tables of ablations, a row is a pretraining run with the same number of steps, and a column fine-tunes its model.
"""

from ml_collections import ConfigDict

from configs import new_config

RATE = 'optim.learning_rate=3e-4'
LIMIT_10K = ('data.limit=10_000', 'train.steps="2 epochs"')
LIMIT_5K = ('data.limit=5000', 'train.steps="2 epochs"')
SQUAD = ('data.limit=2000', 'train.steps="2 epochs"', 'train.eval_rows=1000', 'data.length=256')
# By task: config, score, and settings for `mini`, which uses nli_small in place of MNLI.
TASKS = {
    'MNLI': ('glue.py:mnli', 'accuracy', (RATE, *LIMIT_10K)),
    'QNLI': ('glue.py:qnli', 'accuracy', (RATE, *LIMIT_10K)),
    'MRPC': ('glue.py:mrpc', 'accuracy', (RATE, 'train.steps="3 epochs"')),
    'SST-2': ('glue.py:sst2', 'accuracy', (RATE, *LIMIT_10K)),
    'SQuAD': ('squad.py:v1.1', 'f1', (RATE, *SQUAD)),
    'NER': ('ner.py:en', 'entity_f1', (RATE, *LIMIT_5K)),
    'NER, features': ('ner.py:en,concat_last_four', 'entity_f1', LIMIT_5K),
}
BLIMP = 'BLiMP'
BUCKETS = 'train.length_buckets=3'  # compiling more batch lengths takes longer than the shorter batches save
# Pretraining steps.
STEPS = {'mini': 800, 'small': 8000}
BUDGET = ('train.eval_every=0', 'train.eval_rows=512', 'train.log_every=50', 'checkpoint.every=1.0')


def shape(arg: str) -> str:
    """Return the size of models and data: 'paper' if `arg` is paper, 'mini' if it is mini or small."""
    return 'paper' if arg == 'paper' else 'mini'


def fine_tunings(names: tuple[str, ...], arg: str) -> list[dict]:
    """Create one fine-tuning column for each of these tasks; `arg` is mini, small or paper."""
    mini = shape(arg) == 'mini'
    return [
        dict(
            name=name,
            config=f'configs/finetune/{"xnli.py" if mini and name == "MNLI" else file}',
            score=score,
            format='' if score == 'f1' else 'percent',
            settings=('train.eval_every=0', 'checkpoint.every=1.0', *((BUCKETS, *short) if mini else ())),
        )
        for name, (file, score, short) in ((n, TASKS[n]) for n in names)
    ]


def blimp(arg: str) -> dict:
    """Create the column of minimal pairs, 50 of each of the 67 sets of BLiMP, or all if `arg` is paper."""
    limit = 0 if shape(arg) == 'paper' else 50
    return dict(
        name=BLIMP, config='configs/eval/lm.py:blimp', settings=(f'eval.limit={limit}',), format='percent'
    )


def masked_loss() -> dict:
    """Create the column of the loss on held-out documents, 15 % masked, the same rows and masks for all models."""
    return dict(
        name='loss', config='configs/eval/lm.py:masked', score='masked_loss', settings=('eval.length=128',)
    )


def growing_batch(steps: int, mask_rate: float = 0.3) -> str:
    """Return phases with rows of 128 tokens, as many as in `steps` steps of 32: first batches of 16 rows, then of 32."""
    half, rate = steps // 8, f"'task.mask_rate={mask_rate}'"
    return f'train.phases=(({half}, 128, 16, {rate}), ({steps - half // 2}, 128, 32, {rate}))'


def pretraining(
    name: str, arg: str, settings: tuple[str, ...] = (), model: str = 'bert', rows_dir: str = 'pairs'
) -> dict:
    """Create a row of a table: one pretraining run.

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
    budget = ('train.eval_every=0',) if arg == 'paper' else (f'train.steps={STEPS[arg]}', *BUDGET)
    return dict(name=name, config=config, settings=(*data, *budget, *settings))


def table(
    title: str,
    rows: list[dict],
    columns: list[dict],
    published: dict,
    description: str = 'Minimal pairs of BLiMP, accuracy on GLUE (the small sizes use nli_small in place of MNLI), F1 on SQuAD and named entities. '
    'Published: Devlin et al. 2019. Ours: mean ± standard deviation (number of runs).',
) -> ConfigDict:
    """The config of a table; `published` maps a row to its published scores, in the order of the columns after BLiMP."""
    config = new_config()
    config.title, config.description = title, description
    config.rows, config.columns = tuple(rows), tuple(columns)
    names = [column['name'] for column in columns if column['name'] != BLIMP]
    config.published = {
        row: {name: float(score) for name, score in zip(names, scores, strict=False)}
        for row, scores in published.items()
    }
    return config
