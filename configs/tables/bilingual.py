"""What must two languages share to become aligned? Tests with a fake language (Dufter & Schütze 2020, table 1).

python -m bert_jax.bin.table --config=configs/tables/bilingual.py --jobs=2 --config.text=novels_en.txt.gz

Each row pretrains a small BERT on a language and its fake copy (configs/pretrain/bilingual.py), each time with
different parts shared, and measures how well the languages are aligned. By default, takes about 50 minutes on one CPU
core; `:paper` trains ten times as long. Results are in docs/results/fake_language.md. --config.text is the pretraining
text, by default the Python documentation (pydocs/text).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

SEPARATE_POSITIONS = ('task.position_embeddings=separate',)
SEPARATE_SPECIAL = ('task.special_tokens=separate',)
INVERTED = 'task.word_order=inverted'
SKIP_REASON = 'fine-tuning uses the original positions and word order'
ROWS = {
    'everything shared': (),
    'separate special tokens': SEPARATE_SPECIAL,
    'separate positions': SEPARATE_POSITIONS,
    'separate positions and special tokens': (*SEPARATE_POSITIONS, *SEPARATE_SPECIAL),
    'inverted word order': (INVERTED,),
    'no random tokens in masking': ('task.random_fraction=0.0',),
    'no parallel text': ('task.parallel_corpus=false',),
    'four times the width': ('model.width=256', 'model.mlp_width=1024'),
}

_TAGGING = dict(config='configs/finetune/pos.py:en_ewt', format='percent')
_FINE_TUNING = ('optim.learning_rate=1e-3', 'train.eval_every=0', 'checkpoint.every=1.0', 'data.length=64')
# Part-of-speech tags, fine-tuned in the real language and evaluated in both.
TAGS = (
    dict(name='tags', settings=_FINE_TUNING, **_TAGGING),
    dict(
        name='tags, fake',
        source_column='tags',
        settings=('data.fake_language=shared', 'data.length=64'),
        **_TAGGING,
    ),
)


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, or paper (ten times as many steps)."""
    check_argument(arg, ('mini', 'paper'))
    steps = {'mini': 4_000, 'paper': 40_000}[arg]
    config = new_config()
    config.title = 'Alignment with a fake language'
    config.description = (
        'In percent, at the best layer. Word alignment: mean reciprocal rank of the fake copy of a word. Sentence retrieval: '
        'sentences whose fake copy is nearest. Translated by shift: predicted tokens that are the fake copy, after adding the '
        'mean difference of the languages, at the best factor α. Tags: accuracy after fine-tuning on the real language.'
    )
    config.rows = tuple(_row(name, settings, steps) for name, settings in ROWS.items())
    study = dict(config='bin/study_language.py', format='percent')
    same_study = dict(source_column='word alignment', format='percent')
    config.columns = (
        dict(name='word alignment', score='word_alignment', **study),
        dict(name='sentence retrieval', score='sentence_retrieval', **same_study),
        dict(name='translated by shift', score='translation_accuracy', **same_study),
        *TAGS,
    )
    return config


def _row(name: str, settings: tuple[str, ...], steps: int) -> dict:
    row: dict = dict(
        name=name,
        config='configs/pretrain/bilingual.py',
        settings=(
            'data.sources={text}',
            'data.rows_dir={workdir}/rows',
            f'train.steps={steps}',
            'train.eval_every=0',
            'checkpoint.every=1.0',
            *settings,
        ),
    )
    if {*settings} & {*SEPARATE_POSITIONS, INVERTED}:
        row['skipped_columns'] = {'tags, fake': SKIP_REASON}
    if SEPARATE_SPECIAL[0] in settings:
        row['column_settings'] = {'tags, fake': ('data.fake_language=separate',)}
    return row
