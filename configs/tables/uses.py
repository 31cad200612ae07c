"""What a small encoder is good for: nine downstream tasks, from pretrained and from random weights, with three seeds.

python -m bert_jax.bin.table --config=configs/tables/uses.py --jobs=2 --config.checkpoint=runs/english
python -m bert_jax.bin.report runs/english runs/uses runs/uses/{cola,mrpc,rte,sts_b,tags,entities,sst_2,nli,squad} \
    --out=runs/uses/report.html --plots=runs/uses/plots

The report adds the curves of all tasks. From a checkpoint of configs/pretrain/cpu.py:192, pretrained weights have the
better mean score on all nine tasks (docs/results/uses_of_bert.md). The time of the whole table has not been recorded;
each run takes minutes on two CPU cores. For a model of a few million parameters, set --jobs to the number of CPU cores.
"""

from ml_collections import ConfigDict

from configs import new_config

RANDOM = 'random weights'
# Name, config, score, further settings.
TASKS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ('CoLA', 'glue.py:cola', 'matthews', ()),
    ('MRPC', 'glue.py:mrpc', 'f1', ()),
    ('RTE', 'glue.py:rte', 'accuracy', ()),
    ('STS-B', 'glue.py:stsb', 'correlation', ()),
    ('tags', 'pos.py:en_ewt', 'accuracy', ()),
    ('entities', 'ner.py:en', 'entity_f1', ('train.steps="1 epochs"',)),
    ('SST-2', 'glue.py:sst2', 'accuracy', ('train.steps="1 epochs"',)),
    ('NLI', 'xnli.py', 'accuracy', ('train.steps="1 epochs"',)),
    ('SQuAD', 'squad.py:v1.1', 'f1', ('data.limit=3000', 'train.eval_rows=4000')),
)
# By column: name and config of an evaluation of its models on other data, or on the full split.
EVALUATIONS = {
    'NLI': ('NLI, XNLI test', 'xnli.py:en'),
    'SQuAD': ('SQuAD, all of validation', 'squad.py:v1.1'),
}
# Logs every step, for the curves of the report; evaluates and saves only at the end.
SETTINGS = ('optim.learning_rate=3e-4', 'train.log_every=1', 'train.eval_every=0', 'checkpoint.every=1.0')


def get_config() -> ConfigDict:
    config = new_config()
    config.title = 'Downstream tasks, from pretrained and from random weights'
    config.description = (
        'In percent: Matthews correlation for CoLA, F1 for MRPC, entities and SQuAD 1.1, mean of Pearson and Spearman correlation '
        'for STS-B, otherwise accuracy. Development sets, except XNLI; mean ± standard deviation (number of runs).'
    )
    config.seeds = 3
    config.transposed = True
    config.baseline = RANDOM
    config.rows = (dict(name='pretrained'), dict(name=RANDOM, weights='random'))
    config.columns = tuple(column for task in TASKS for column in _columns(*task))
    return config


def _columns(name: str, file: str, score: str, settings: tuple[str, ...]) -> list[dict]:
    common = dict(score=score, format='' if name == 'SQuAD' else 'percent')  # SQuAD's scores are percentages
    columns = [dict(name=name, config=f'configs/finetune/{file}', settings=(*SETTINGS, *settings), **common)]
    if name in EVALUATIONS:
        title, other = EVALUATIONS[name]
        columns.append(dict(name=title, config=f'configs/finetune/{other}', source_column=name, **common))
    return columns
