"""How many labels pretraining replaces: fine-tuning on few and on all labels, from pretrained and from random weights.

python -m bert_jax.bin.table --config=configs/tables/label_amount.py --jobs=2 --config.checkpoint=runs/english

By default, three tasks, in less than half an hour on two CPU cores. `:small` has all five tasks and two seeds; `:paper`
has five seeds, and the learning rate and numbers of epochs for a large model. Expect pretraining to
replace thousands of labels for tags and entities (docs/results/label_efficiency.md).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Name, config, score, number of training examples.
TASKS = (
    ('SST-2', 'configs/finetune/sst2.py', 'accuracy', 67_349),
    ('NLI', 'configs/finetune/xnli.py', 'accuracy', 27_478),
    ('tags', 'configs/finetune/pos.py:en_ewt', 'accuracy', 12_544),
    ('entities', 'configs/finetune/ner.py:en', 'entity_f1', 20_000),
    ('answers', 'configs/finetune/squad.py:v1.1', 'f1', 87_599),
)
# Settings of tasks with long texts. `:paper` ignores them and also trains on all examples; the
# other sizes train these tasks on at most LABELS[-1] examples.
LONG_TEXTS = {'answers': ('data.length=256', 'train.eval_rows=1000')}
LABELS = (100, 500, 2000)
# Epochs by number of examples.
EPOCHS = {100: 10, 500: 5, 2000: 3}
PAPER_EPOCHS = {100: 20, 500: 10, 2000: 5}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small (all tasks) or paper (learning rate and epochs for a large model)."""
    check_argument(arg, ('mini', 'small', 'paper'))
    config = new_config()
    config.title = 'Pretraining and the number of labels'
    config.description = (
        'Accuracy in percent for SST-2, NLI and part-of-speech tags; F1 for entities and answers (SQuAD 1.1). '
        'Mean ± standard deviation (number of runs).'
    )
    config.seeds = {'mini': 1, 'small': 2, 'paper': 5}[arg]
    config.transposed = True
    config.x_label = 'labeled examples'
    config.baseline = 'random weights'
    config.rows = (dict(name='pretrained'), dict(name='random weights', weights='random'))
    tasks = [task for task in TASKS if arg != 'mini' or task[0] in ('SST-2', 'tags', 'entities')]
    config.columns = tuple(column for task in tasks for column in _columns(*task, paper=arg == 'paper'))
    return config


def _columns(name: str, file: str, score: str, size: int, paper: bool) -> list[dict]:
    """One column for each number of labels; `size` is the number of all training examples of the task."""
    rate, epochs, few_epochs = ('5e-5', 3, PAPER_EPOCHS) if paper else ('3e-4', 1, EPOCHS)
    long_texts = () if paper else LONG_TEXTS.get(name, ())
    amounts = LABELS if long_texts else (*LABELS, size)
    return [
        dict(
            name=f'{name}, {"all" if n == size else f"{n:,}"}',
            config=file,
            score=score,
            format='' if score == 'f1' else 'percent',
            panel=f'{name}: {"accuracy" if score == "accuracy" else "F1"} in %',
            x=n,
            settings=(
                f'data.limit={0 if n == size else n}',
                f'train.steps="{few_epochs.get(n, epochs)} epochs"',
                f'optim.learning_rate={rate}',
                f'train.eval_every={0.1 if n == amounts[-1] else 0}',  # curves of loss and score
                'checkpoint.every=1.0',
                # Compiling for more batch lengths takes longer than the shorter batches save.
                *(('train.length_buckets=2',) if n in LABELS else ()),
                *long_texts,
            ),
        )
        for n in amounts
    ]
