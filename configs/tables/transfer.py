"""Zero-shot transfer: fine-tuned on English, scored in other languages (Wu & Dredze 2019; Pires et al. 2019).

python -m bert_jax.bin.table --config=configs/tables/transfer.py --workdir=runs/transfer --jobs=2 \
    --config.checkpoints.multilingual=runs/multilingual --config.checkpoints.english=runs/english

The multilingual model may be one converted from Hugging Face. `:paper` takes all labels, of MultiNLI for inference, at the rates of the paper.
"""

from ml_collections import ConfigDict

NLI, TAGS, ENTITIES, QA = 'NLI', 'tags', 'entities', 'QA'
# Multilingual BERT, cased: XNLI accuracy (Wu & Dredze 2019), XQuAD F1 (Artetxe et al. 2020).
PUBLISHED = {
    NLI: dict(en=82.1, fr=73.8, es=74.3, de=71.1, zh=69.3),
    QA: dict(en=83.5, es=75.5, de=70.6),
}
# task: languages with their configs, the first of which is of the fine-tuning, and the score.
TASKS = {
    NLI: ({k: f'configs/finetune/xnli.py:{k}' for k in ('en', 'de', 'fr', 'es', 'zh')}, 'accuracy'),
    TAGS: (
        {
            k: f'configs/finetune/pos.py:{v}'
            for k, v in dict(en='en_ewt', de='de_gsd', fr='fr_gsd', es='es_gsd', zh='zh_gsd').items()
        },
        'accuracy',
    ),
    ENTITIES: ({k: f'configs/finetune/ner.py:{k}' for k in ('en', 'de')}, 'entity_f1'),
    QA: ({k: f'configs/finetune/squad.py:xquad/{k}' for k in ('en', 'de', 'es', 'zh')}, 'f1'),
}
TRAINED_ON = {
    'mini': {NLI: 'configs/finetune/xnli.py', QA: 'configs/finetune/squad.py:v1.1'},
    'paper': {NLI: 'configs/finetune/glue.py:mnli', QA: 'configs/finetune/squad.py:v1.1'},
}
OWN = 'entities de, trained on de'
MINI = {
    NLI: ('train.steps="1 epochs"',),
    TAGS: ('train.steps="2 epochs"', 'data.limit=5000'),
    ENTITIES: ('train.steps="2 epochs"', 'data.limit=5000'),
    QA: ('train.steps="2 epochs"', 'data.limit=1500', 'train.eval_rows=500'),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper."""
    mini = {k: ('optim.learning_rate=3e-4', 'train.eval_every=0', *v) for k, v in MINI.items()}
    paper: dict = dict.fromkeys(TASKS, ())
    more = {'mini': mini, 'paper': paper}[arg]
    config = ConfigDict()
    config.title = 'From English to other languages'
    config.about = (
        'NLI and tags: accuracy; entities: F1; QA: F1 of XQuAD. Mean removed: the difference of the means of the two languages '
        'is taken from the hidden states half-way up. Published: multilingual BERT, base size. '
        'Own: mean ± standard deviation (runs).'
    )
    config.seeds = {'mini': 2, 'paper': 5}[arg]
    config.turned = True
    config.amount = 'language'
    config.checkpoints = dict(multilingual='runs/multilingual', english='runs/english')
    config.rows = (
        dict(name='multilingual', checkpoint='{multilingual}'),
        dict(name='English only', checkpoint='{english}'),
        dict(name='multilingual, random weights', checkpoint='{multilingual}', weights='random'),
    )
    columns = []
    for task, (languages, score) in TASKS.items():
        shown = '' if task == QA else 'percent'
        base = f'{task}, as trained'
        first = TRAINED_ON[arg].get(task, languages['en'])
        panel = f'{task}: {"accuracy" if score == "accuracy" else "F1"} in %'
        same = dict(score=score, shown=shown)
        columns.append(dict(name=base, config=first, settings=more[task], **same))
        if first == languages['en']:
            columns[-1] |= dict(panel=panel, x='en')
        columns += [
            dict(name=f'{task} {k}', config=v, of=base, panel=panel, x=k, **same)
            for k, v in languages.items()
            if v != first
        ]
        if task == TAGS:
            columns += [
                dict(
                    name=f'{task} {k}, mean removed',
                    config='bin/study_mean_removal.py',
                    score='removed',
                    shown=shown,
                    of=base,
                    panel=f'{panel}, mean removed',
                    x=k,
                    settings=(f'home={first}', f'away={v}'),
                )
                for k, v in languages.items()
                if v != first
            ]
    own = dict(name=OWN, config=TASKS[ENTITIES][0]['de'], score='entity_f1', shown='percent')
    config.columns = (*columns, {**own, 'settings': more[ENTITIES]})
    config.published = {
        'multilingual': {f'{task} {k}': v for task, found in PUBLISHED.items() for k, v in found.items()}
    }
    return config
