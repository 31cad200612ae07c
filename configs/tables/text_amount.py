"""Alignment by amount of text, for BERT and word2vec (Liu et al. 2020, arXiv 2004.09205, figure 2).

python -m bert_jax.bin.table --config=configs/tables/text_amount.py --jobs=2 --config.text=novels_en.txt.gz

BERT is pretrained on a language and its fake copy (configs/pretrain/bilingual.py), with increasing amounts of text and
a constant number of steps. The default model is as small as that of configs/tables/bilingual.py; the table takes a
quarter of an hour on two CPU cores. `:small` (80 minutes) and `:paper` use four times the width, because a narrow model
with much text learns only word frequencies, and nothing aligns. Expect better alignment with less text, and none for
word2vec, which ignores context (docs/results/amount_of_text.md). --config.text is the pretraining text, by default the
Python documentation (pydocs/text).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.tables import bilingual

# By `arg`: amounts of text of each language in millions of characters; number of training steps.
AMOUNTS = {
    'mini': ((0.1, 0.3, 1, 3, 10), 4000),
    'small': ((0.3, 1, 3, 10), 4000),
    'paper': ((1, 3, 10, 30, 100, 300, 1000), 40_000),
}
WIDE = ('model.width=256', 'model.mlp_width=1024')
WORDS, SENTENCES = 'word alignment, MRR × 100', 'sentence retrieval, %'


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small (wider model) or paper (the same wider model, more text, more steps)."""
    check_argument(arg, tuple(AMOUNTS))
    amounts, steps = AMOUNTS[arg]
    config = new_config()
    config.title = 'Alignment and amount of text'
    config.description = (
        'Words: mean reciprocal rank of the fake copy of a word. Sentences: share whose fake copy is nearest. Both at the best '
        'layer of BERT, and for word2vec. Tags: accuracy after fine-tuning on the real language, evaluated in both.'
    )
    config.seeds = 3 if arg == 'paper' else 1
    config.x_label = 'text of each language, million characters'
    config.rows = tuple(
        dict(
            name=f'{amount} million',
            x=amount,
            config='configs/pretrain/bilingual.py',
            settings=(
                'data.sources={text}',
                f'data.max_train_chars={int(amount * 1e6)}',
                f'data.rows_dir={{workdir}}/rows/{amount}',
                *(WIDE if arg != 'mini' else ()),
                f'train.steps={steps}',
                'train.eval_every=0',
                'checkpoint.every=1.0',
            ),
        )
        for amount in amounts
    )
    study = dict(config='bin/study_language.py', settings=('word2vec', 'alphas=1'))
    same_study = dict(source_column='words, BERT')
    config.columns = (
        *(
            dict(name=name, score=score, panel=panel, format='percent', **source)
            for name, score, panel, source in (
                ('words, BERT', 'word_alignment', WORDS, study),
                ('words, word2vec', 'word2vec_word_alignment', WORDS, same_study),
                ('sentences, BERT', 'sentence_retrieval', SENTENCES, same_study),
                ('sentences, word2vec', 'word2vec_sentence_retrieval', SENTENCES, same_study),
            )
        ),
        *({**column, 'panel': 'tags, %'} for column in bilingual.TAGS),
    )
    return config
