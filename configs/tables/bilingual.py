"""What two languages must share to be aligned: a fake language, its parts taken away one by one (Dufter & Schütze 2020, table 1).

python -m bert_jax.bin.table --config=configs/tables/bilingual.py --workdir=runs/bilingual_table --jobs=2 \
    --config.text=novels_en.txt.gz
"""

from ml_collections import ConfigDict

OWN_POSITIONS = ('task.positions=own',)
OWN_SPECIAL = ('task.special=own',)
INVERTED = 'task.order=inverted'
WHY_NOT = 'labelled texts are read in real positions and order'
ROWS = {
    'everything shared': (),
    'own special tokens': OWN_SPECIAL,
    'own positions': OWN_POSITIONS,
    'own positions and special tokens': (*OWN_POSITIONS, *OWN_SPECIAL),
    'inverted order': (INVERTED,),
    'no random words': ('task.random=0.0',),
    'no sentence in both': ('task.paired=false',),
    'four times as wide': ('model.width=256', 'model.mlp=1024'),
}

_TAGS = dict(config='configs/finetune/pos.py:en_ewt', shown='percent')
_TUNE = ('optim.learning_rate=1e-3', 'train.eval_every=0', 'checkpoint.every=1.0', 'data.length=64')
# Learnt in the real language and scored in both.
TAGS = (
    dict(name='tags', settings=_TUNE, **_TAGS),
    dict(name='tags, fake', of='tags', settings=('data.fake=shared', 'data.length=64'), **_TAGS),
)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini or paper: the latter trains ten times as long."""
    steps = {'mini': 4_000, 'paper': 40_000}[arg]
    config = ConfigDict()
    config.title = 'A fake language'
    config.about = (
        'In percent. Of the best layer: mean reciprocal rank of the double of a word, share of sentences whose double is nearest; words '
        'that are the double when hidden states are shifted (of the best α too); tags, fine-tuned on the real language.'
    )
    config.seeds = 1
    config.text = 'pydocs/text'
    config.rows = tuple(
        dict(
            name=name,
            config='configs/pretrain/bilingual.py',
            settings=(
                'data.sources={text}',
                'data.rows={workdir}/rows',
                f'train.steps={steps}',
                'train.eval_every=0',
                'checkpoint.every=1.0',
                *settings,
            ),
            **({'skip': {'tags, fake': WHY_NOT}} if {*settings} & {*OWN_POSITIONS, INVERTED} else {}),
            **({'also': {'tags, fake': ('data.fake=own',)}} if OWN_SPECIAL[0] in settings else {}),
        )
        for name, settings in ROWS.items()
    )
    study = dict(config='bin/study_language.py')
    config.columns = (
        dict(name='word alignment', score='word_alignment', shown='percent', **study),
        dict(name='sentence retrieval', score='sentence_retrieval', shown='percent', of='word alignment'),
        dict(name='shifted and translated', score='translated', shown='percent', of='word alignment'),
        *TAGS,
    )
    return config
