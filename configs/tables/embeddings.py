"""Vectors of texts: what training on sentences, inference, similarities or questions adds to a pretrained encoder.

python -m bert_jax.bin.table --config=configs/tables/embeddings.py --jobs=2 --config.checkpoint=runs/encoder \
    --config.text=encyclopedia_en.txt.gz

Each row is a way of training, the columns are what its vectors are good for: similarities (STS-B, SICK) and search
(Cranfield). SimCSE reads 30,000 lines of `text`. The rates suit models of a few million parameters.
"""

from ml_collections import ConfigDict

from configs import new_config

FINE_TUNING = ('optim.learning_rate=3e-4', 'train.eval_every=0', 'checkpoint.every=1.0')
RANDOM = 'init.weights=random'
# The limit does not hold for the evaluation, whose scores mean nothing here.
SIMCSE = (
    'data.source={text}',
    'data.texts=text',
    'data.limit=30000',
    'data.allow_overlap=true',
    'train.eval_rows=64',
)
MEDQUAD = ('data.length=128', 'train.packing=on', 'train.steps="1 epochs"')


def get_config() -> ConfigDict:
    config = new_config()
    config.title = 'Vectors of texts'
    config.description = (
        "Spearman's correlation of cosines with labels in percent (STS-B: validation, SICK: test), and nDCG@10 of Cranfield in "
        'percent; mean ± standard deviation (number of runs).'
    )
    config.seeds = 3
    config.rows = (
        dict(name='pretrained'),
        _row('SimCSE', 'simcse', 'pretrained', *SIMCSE),
        _row('SimCSE, NLI', 'nli', 'SimCSE'),
        _row('SimCSE, NLI, STS-B', 'stsb', 'SimCSE, NLI'),
        _row('STS-B', 'stsb', 'pretrained'),
        _row('STS-B, random weights', 'stsb', 'pretrained', RANDOM),
        _row('medquad', 'medquad', 'pretrained', *MEDQUAD),
        _row('medquad, random weights', 'medquad', 'pretrained', *MEDQUAD, RANDOM),
    )
    similarity = dict(score='spearman', format='percent', source_column='pretraining')
    config.columns = (
        dict(name='STS-B', config='configs/finetune/embed.py:stsb', **similarity),
        dict(name='SICK', config='configs/finetune/embed.py:sick', **similarity),
        dict(
            name='Cranfield',
            config='bin/eval_retrieval.py',
            settings=('source=beir/cranfield',),
            score='ndcg_at_10',
            format='percent',
        ),
    )
    return config


def _row(name: str, data: str, start: str, *settings: str) -> dict:
    config = f'configs/finetune/embed.py:{data}'
    return dict(name=name, config=config, settings=(*FINE_TUNING, *settings), start=start)
