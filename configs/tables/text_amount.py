"""How much text does alignment need, and is it due to context? (Liu et al. 2020, arXiv 2004.09205, figure 2.)

python -m bert_jax.bin.table --config=configs/tables/text_amount.py --workdir=runs/text_amount --jobs=2 --config.text=novels_en.txt.gz

A language and its double, whose dictionary is exact, from more and more text at the same number of updates; beside the
BERT word2vec on the same text. The model of `:small` and `:paper` is four times as wide as that of bilingual.py, which mini
has too: with much text it has to leave the plateau on which it knows only how frequent words are, before there is anything to align.
"""

from ml_collections import ConfigDict

from configs.tables import bilingual

# Millions of characters of each language, and updates.
AMOUNTS = {
    'mini': ((0.1, 0.3, 1, 3, 10), 4000),
    'small': ((0.3, 1, 3, 10), 4000),
    'paper': ((1, 3, 10, 30, 100, 300, 1000), 40_000),
}
WIDE = ('model.width=256', 'model.mlp=1024')
WORDS, SENTENCES = 'word alignment, MRR × 100', 'sentence retrieval, %'


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, small or paper."""
    amounts, steps = AMOUNTS[arg]
    config = ConfigDict()
    config.title = 'Alignment and amount of text'
    config.about = (
        'Mean reciprocal rank of the double of a word and share of sentences whose double is nearest, of the best layer and '
        'of word2vec; tags (accuracy), fine-tuned on the real language and scored in both.'
    )
    config.seeds = 3 if arg == 'paper' else 1
    config.text = 'pydocs/text'
    config.amount = 'text of each language, million characters'
    config.rows = tuple(
        dict(
            name=f'{amount} million',
            x=amount,
            config='configs/pretrain/bilingual.py',
            settings=(
                'data.sources={text}',
                f'data.limit={int(amount * 1e6)}',
                f'data.rows={{workdir}}/rows/{amount}',
                *(WIDE if arg != 'mini' else ()),
                f'train.steps={steps}',
                'train.eval_every=0',
                'checkpoint.every=1.0',
            ),
        )
        for amount in amounts
    )
    study = dict(config='bin/study_language.py', settings=('static', 'alphas=1'))
    of = dict(of='words, BERT')
    config.columns = (
        *(
            dict(name=name, score=score, panel=panel, shown='percent', **where)
            for name, score, panel, where in (
                ('words, BERT', 'word_alignment', WORDS, study),
                ('words, word2vec', 'static_word_alignment', WORDS, of),
                ('sentences, BERT', 'sentence_retrieval', SENTENCES, of),
                ('sentences, word2vec', 'static_sentence_retrieval', SENTENCES, of),
            )
        ),
        *({**column, 'panel': 'tags, %'} for column in bilingual.TAGS),
    )
    return config
