"""Masking of whole words, compared with masking of word pieces (the README of github.com/google-research/bert).

python -m bert_jax.bin.table --config=configs/tables/whole_words.py --jobs=2 --config.text=novels_en.txt.gz

A BERT of 4 layers, 800 steps, and one epoch on the 27,478 pairs of nli_small. The published scores are those of BERT large
on MultiNLI.
"""

from ml_collections import ConfigDict

from configs import new_config

PRETRAINING = (
    'data.sources={text}',
    'data.rows_dir={workdir}/rows',
    'train.steps=800',
    'train.eval_every=0',
    'checkpoint.every=1.0',
)
FINE_TUNING = (
    'optim.learning_rate=3e-4',
    'train.steps="1 epochs"',
    'train.eval_every=0',
    'checkpoint.every=1.0',
)


def get_config() -> ConfigDict:
    config = new_config()
    config.title = 'Whole-word masking'
    config.description = 'Accuracy in %, mean ± standard deviation (number of runs).'
    config.seeds = 3
    config.baseline = 'word pieces'
    config.rows = (
        dict(name='word pieces', config='configs/pretrain/cpu.py', settings=PRETRAINING),
        dict(
            name='whole words',
            config='configs/pretrain/cpu.py',
            settings=(*PRETRAINING, 'task.whole_word_masking=true'),
        ),
    )
    config.columns = (
        dict(
            name='NLI',
            config='configs/finetune/xnli.py',
            score='accuracy',
            format='percent',
            settings=FINE_TUNING,
            published_name='MultiNLI',
        ),
    )
    config.published = {'word pieces': dict(NLI=86.05), 'whole words': dict(NLI=87.07)}
    return config
