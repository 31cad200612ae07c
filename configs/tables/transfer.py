"""Zero-shot cross-lingual transfer from English to other languages (Wu & Dredze 2019; Pires et al. 2019).

python -m bert_jax.bin.table --config=configs/tables/transfer.py --jobs=2 \
    --config.checkpoints.multilingual=runs/multilingual --config.checkpoints.english=runs/english

The checkpoints are those of configs/pretrain/multilingual.py and configs/pretrain/gpu.py, or converted from
Hugging Face. By default, fine-tunes on parts of the data with two seeds; the time has not been recorded.
`:paper` fine-tunes on all labels (MultiNLI for inference) with the learning rates of the paper and five
seeds. Expect tagging to transfer to the pretraining languages of the multilingual encoder, and question
answering to transfer poorly (docs/results/cross_lingual_transfer.md).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

NLI, TAGS, ENTITIES, QA = 'NLI', 'tags', 'entities', 'QA'
# Multilingual BERT, cased: XNLI accuracy (Wu & Dredze 2019), XQuAD F1 (Artetxe et al. 2020).
PUBLISHED = {
    NLI: dict(en=82.1, fr=73.8, es=74.3, de=71.1, zh=69.3),
    QA: dict(en=83.5, es=75.5, de=70.6),
}
TREEBANKS = dict(en='en_ewt', de='de_gsd', fr='fr_gsd', es='es_gsd', zh='zh_gsd')
# By task: the config of each language, and the score. Models are fine-tuned with the config in
# TRAINED_ON or, if it has none for the task, with the English config.
TASKS = {
    NLI: ({k: f'configs/finetune/xnli.py:{k}' for k in ('en', 'de', 'fr', 'es', 'zh')}, 'accuracy'),
    TAGS: ({k: f'configs/finetune/pos.py:{v}' for k, v in TREEBANKS.items()}, 'accuracy'),
    ENTITIES: ({k: f'configs/finetune/ner.py:{k}' for k in ('en', 'de')}, 'entity_f1'),
    QA: ({k: f'configs/finetune/squad.py:xquad/{k}' for k in ('en', 'de', 'es', 'zh')}, 'f1'),
}
TRAINED_ON = {
    'mini': {NLI: 'configs/finetune/xnli.py', QA: 'configs/finetune/squad.py:v1.1'},
    'paper': {NLI: 'configs/finetune/glue.py:mnli', QA: 'configs/finetune/squad.py:v1.1'},
}
GERMAN = 'entities de, trained on de'
MINI = {
    NLI: ('train.steps="1 epochs"',),
    TAGS: ('train.steps="2 epochs"', 'data.limit=5000'),
    ENTITIES: ('train.steps="2 epochs"', 'data.limit=5000'),
    QA: ('train.steps="2 epochs"', 'data.limit=1500', 'train.eval_rows=500'),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini (part of the data) or paper (all labeled examples, learning rates of the paper)."""
    check_argument(arg, tuple(TRAINED_ON))
    mini = {k: ('optim.learning_rate=3e-4', 'train.eval_every=0', *v) for k, v in MINI.items()}
    paper: dict = dict.fromkeys(TASKS, ())
    settings = {'mini': mini, 'paper': paper}[arg]
    config = new_config()
    config.title = 'Transfer from English to other languages'
    config.description = (
        'Accuracy for NLI and part-of-speech tags, F1 for entities and QA (XQuAD). Mean removed: the difference of the two '
        "languages' mean hidden states is subtracted in the middle layer. Published: multilingual BERT, base size. "
        'Ours: mean ± standard deviation (number of runs).'
    )
    config.seeds = {'mini': 2, 'paper': 5}[arg]
    config.transposed = True
    config.x_label = 'language'
    config.checkpoints = dict(multilingual='runs/multilingual', english='runs/english')
    config.rows = (
        dict(name='multilingual', checkpoint='{multilingual}'),
        dict(name='English only', checkpoint='{english}'),
        dict(name='multilingual, random weights', checkpoint='{multilingual}', weights='random'),
    )
    german = dict(name=GERMAN, config=TASKS[ENTITIES][0]['de'], score='entity_f1', format='percent')
    config.columns = (
        *(column for task in TASKS for column in _columns(task, TRAINED_ON[arg].get(task), settings[task])),
        {**german, 'settings': settings[ENTITIES]},
    )
    config.published = {
        'multilingual': {f'{task} {k}': v for task, scores in PUBLISHED.items() for k, v in scores.items()}
    }
    return config


def _columns(task: str, trained_on: str | None, settings: tuple[str, ...]) -> list[dict]:
    """Make the table columns of a task.

    The columns are fine-tuning, evaluation of the fine-tuned models on every other language and, for tags, evaluation
    on every other language with mean removal.
    """
    languages, score = TASKS[task]
    base = f'{task}, as trained'
    tuned = trained_on or languages['en']
    panel = f'{task}: {"accuracy" if score == "accuracy" else "F1"} in %'
    common = dict(score=score, format='' if task == QA else 'percent')
    columns = [dict(name=base, config=tuned, settings=settings, **common)]
    if tuned == languages['en']:
        columns[0] |= dict(panel=panel, x='en')
    others = {k: config for k, config in languages.items() if config != tuned}
    columns += [
        dict(name=f'{task} {k}', config=config, source_column=base, panel=panel, x=k, **common)
        for k, config in others.items()
    ]
    if task == TAGS:
        columns += [
            dict(
                name=f'{task} {k}, mean removed',
                config='bin/study_mean_removal.py',
                score='mean_removed',
                format='percent',
                source_column=base,
                panel=f'{panel}, mean removed',
                x=k,
                settings=(f'source_config={tuned}', f'target_config={config}'),
            )
            for k, config in others.items()
        ]
    return columns
