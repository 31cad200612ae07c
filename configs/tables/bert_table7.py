"""BERT, table 7: named entity recognition by fine-tuning, and by a BiLSTM on the hidden states of a frozen encoder.

python -m bert_jax.bin.table --config=configs/tables/bert_table7.py --config.checkpoint=runs/english
python -m bert_jax.bin.table --config=configs/tables/bert_table7.py:paper --config.checkpoint=runs/bert_base \
    --config.text=conll2003/{split}.conll

By default, 5,000 sentences of WikiANN; with a small model, the table takes 10 to 25 minutes on two CPU cores. Expect
the last four layers, concatenated, to be the best features (docs/results/bert_tables.md). `:paper` is for a published
model and CoNLL-2003: set --config.text to its files, and convert the model from Hugging Face (python -m
bert_jax.bin.convert --from_hf=bert-base-cased --to=runs/bert_base).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.tables import ablation, bert_table1

NER = 'entity F1'
# By row: task.features of `tasks/tag.py`, development F1 of BERT base on CoNLL-2003.
PUBLISHED = {
    'fine-tuned': ('', 96.4),
    'embeddings': ('embeddings', 91.0),
    'second-to-last layer': ('second_to_last', 95.6),
    'last layer': ('last', 94.9),
    'sum of last four layers': ('sum_last_four', 95.9),
    'concatenation of last four layers': ('concat_last_four', 96.1),
    'sum of all layers': ('sum_all', 95.5),
}


def get_config(arg: str = 'mini') -> ConfigDict:
    """`arg` is mini (WikiANN) or paper (files of CoNLL-2003)."""
    check_argument(arg, ('mini', 'paper'))
    description = (
        'Entity F1 on the development set. Published: Devlin et al. 2019, base, CoNLL-2003, with weighted sums of layers. Ours: '
        + {'mini': 'WikiANN', 'paper': 'CoNLL-2003'}[arg]
        + ', sums with learned softmax weights and scale, mean ± standard deviation (number of runs).'
    )
    data = {
        'mini': ('data.limit=5000', *bert_table1.SHORT),
        'paper': ("data.source='{text}'", 'data.label=tags'),
    }[arg]
    rate = {'mini': 'optim.learning_rate=3e-4', 'paper': 'optim.learning_rate=3e-5'}[arg]
    rows = [
        dict(
            name=name,
            column_settings={
                NER: (f'task.features={features}', 'optim.learning_rate=1e-3') if features else (rate,)
            },
        )
        for name, (features, _) in PUBLISHED.items()
    ]
    column = dict(
        name=NER,
        config='configs/finetune/ner.py:en',
        score='entity_f1',
        format='percent',
        settings=('train.eval_every=0', 'checkpoint.every=1.0', *data),
    )
    published = {name: (score,) for name, (_, score) in PUBLISHED.items()}
    config = ablation.table('BERT, table 7: named entity recognition', rows, [column], published, description)
    config.seeds = {'mini': 1, 'paper': 5}[arg]
    config.text = 'conll2003/{split}.conll'
    return config
