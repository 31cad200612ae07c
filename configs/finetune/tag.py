"""Predict a tag for each word, from any TFDS data set or files.

python -m bert_jax.bin.train --config=configs/finetune/tag.py:uner/zh_gsdsimp --workdir=runs/uner \
    --config.init.checkpoint=runs/multilingual --config.data.label=ner_tags --config.task.entities=true
python -m bert_jax.bin.eval_tag --config=configs/finetune/tag.py:uner/zh_gsdsimp --checkpoint=runs/uner \
    --out=runs/uner/scores.json --config.data.label=ner_tags --config.task.entities=true
python -m bert_jax.bin.train --config=configs/finetune/tag.py --workdir=runs/mine \
    --config.init.checkpoint=runs/english --config.data.source='mine/{split}.conll'

The argument, or --config.data.source, is a TFDS name or a path in which {split} stands for train and validation. The
fields are tokens and tags unless data.tokens and data.label name others. If the tags are B-X, I-X and O, set
--config.task.entities=true to score whole entities. Scores and duration depend on the data;
--config.init.weights=random gives the baseline without pretraining. The learning rate suits BERT base, 3e-4 models of a
few million parameters.
"""

from ml_collections import ConfigDict

from configs import new_config


def get_config(source: str = '') -> ConfigDict:
    """`source` is a TFDS name or a path; if it is empty, set data.source."""
    config = new_config()
    config.task = dict(name='tag')
    config.model = dict(name='bert')
    config.data = dict(source=source, length=128)
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='accuracy')
    return config
