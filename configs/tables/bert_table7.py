"""BERT, table 7: named entities by fine-tuning, and by a BiLSTM over hidden states that stay as they are.

python launch/table.py configs/tables/bert_table7.py --config.checkpoint=runs/english
python launch/table.py configs/tables/bert_table7.py --scale=paper --config.checkpoint=CONVERTED --config.text=conll2003/{split}.conll
"""

from ml_collections import ConfigDict

NER = 'entity F1'
# The features of `tasks/tag.py`; development F1 of BERT base on CoNLL-2003.
PUBLISHED = {
    'fine-tuned': ('', 96.4),
    'embeddings': ('embeddings', 91.0),
    'second to last': ('second_to_last', 95.6),
    'last': ('last', 94.9),
    'sum of the last four': ('sum_last_four', 95.9),
    'last four, one after the other': ('concat_last_four', 96.1),
    'sum of all': ('sum_all', 95.5),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini, on WikiANN, or paper, on the files of CoNLL-2003."""
    config = ConfigDict()
    config.title = 'BERT, table 7: named entities'
    config.about = (
        'F1 of entities on the development set. Published: Devlin et al. 2019, base, CoNLL-2003, their sums weighted. Own: '
        + {'mini': 'WikiANN', 'paper': 'CoNLL-2003'}[arg]
        + ', mean ± standard deviation (runs).'
    )
    config.seeds = {'mini': 1, 'paper': 5}[arg]
    config.checkpoint = ''
    config.text = 'conll2003/{split}.conll'
    data = {
        'mini': ('data.limit=5000', 'train.steps="2 epochs"', 'train.bins=3', 'train.eval_rows=2000'),
        'paper': ("data.source='{text}'", 'data.label=tags'),
    }[arg]
    tuned = {'mini': 'optim.learning_rate=3e-4', 'paper': 'optim.learning_rate=3e-5'}[arg]
    config.rows = tuple(
        dict(
            name=name,
            also={NER: (f'task.features={features}', 'optim.learning_rate=1e-3') if features else (tuned,)},
        )
        for name, (features, _) in PUBLISHED.items()
    )
    config.columns = (
        dict(
            name=NER,
            config='configs/finetune/ner.py:en',
            score='entity_f1',
            shown='percent',
            settings=('train.eval_every=0', 'checkpoint.every=1.0', *data),
        ),
    )
    config.published = {name: {NER: number} for name, (_, number) in PUBLISHED.items()}
    return config
