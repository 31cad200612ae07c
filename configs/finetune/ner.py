"""Named entity recognition: WikiANN (Pan et al. 2017), or CoNLL-2003 (Tjong Kim Sang & De Meulder 2003).

python -m bert_jax.bin.train --config=configs/finetune/ner.py:en --workdir=runs/ner \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4
python -m bert_jax.bin.eval_tag --config=configs/finetune/ner.py:en --checkpoint=runs/ner --out=runs/ner/scores.json

From a checkpoint of configs/pretrain/cpu.py:192, with this learning rate: entity F1 62.3 ± 0.5 after one epoch (three
seeds), in minutes on two cores. The argument is a WikiANN language. `ner.py:en,concat_last_four` freezes the encoder
and trains a BiLSTM on its hidden states (Devlin et al. 2019, table 7); in place of concat_last_four, write embeddings,
second_to_last, last, sum_last_four or sum_all. For files with one word and its tag per line, set
--config.data.source='conll2003/{split}.conll' --config.data.label=tags.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# What the BiLSTM reads (Devlin et al. 2019, table 7).
FEATURES = ('embeddings', 'second_to_last', 'last', 'sum_last_four', 'concat_last_four', 'sum_all')


def get_config(arg: str = 'en') -> ConfigDict:
    """`arg` is LANGUAGE, or LANGUAGE,FEATURES to train a BiLSTM on features of the frozen encoder."""
    language, comma, features = arg.partition(',')
    code = language.split('-')[0]  # WikiANN also has names such as zh-classical and simple
    is_language = code.isalpha() and code.islower() and (len(code) in (2, 3) or code == 'simple')
    forms = ('LANGUAGE (such as en)', *(f'LANGUAGE,{name}' for name in FEATURES))
    check_argument(arg, forms, is_language and (features in FEATURES or not comma))
    config = new_config()
    config.task = dict(name='tag', entities=True, features=features)
    config.model = dict(name='bert')
    config.data = dict(source=f'wikiann/{language}', tokens='tokens', label='ner_tags', length=128)
    config.optim = dict(learning_rate=1e-3 if features else 5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='entity_f1')
    return config
