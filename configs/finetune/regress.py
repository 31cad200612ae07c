"""Predict a number for a text or a pair of texts, from any TFDS data set or files.

python -m bert_jax.bin.train --config=configs/finetune/regress.py:sick --workdir=runs/sick \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4 \
    --config.data.text=sentence_A --config.data.text_pair=sentence_B --config.data.label=relatedness_score
python -m bert_jax.bin.eval_regress --config=configs/finetune/regress.py:sick --checkpoint=runs/sick \
    --out=runs/sick/scores.json \
    --config.data.text=sentence_A --config.data.text_pair=sentence_B --config.data.label=relatedness_score
python -m bert_jax.bin.train --config=configs/finetune/regress.py --workdir=runs/prices \
    --config.init.checkpoint=runs/english --config.data.source='mine/{split}.csv' --config.data.label=price

The argument, or --config.data.source, is a TFDS name or a path in which {split} stands for train and validation. The
fields are text and label unless data.text, data.text_pair and data.label name others. Scores and duration depend on the
data; --config.init.weights=random gives the baseline without pretraining. The learning rate suits BERT base, 3e-4 models
of a few million parameters.
"""

from ml_collections import ConfigDict

from configs import new_config


def get_config(source: str = '') -> ConfigDict:
    """`source` is a TFDS name or a path; if it is empty, set data.source."""
    config = new_config()
    config.task = dict(name='regress')
    config.model = dict(name='bert')
    config.data = dict(source=source, length=128)
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='correlation')
    return config
