"""Classify texts or pairs of texts, from any TFDS data set or files.

python -m bert_jax.bin.train --config=configs/finetune/classify.py:glue/sst2 --workdir=runs/sst2 \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4 --config.data.text=sentence
python -m bert_jax.bin.eval_classify --config=configs/finetune/classify.py:glue/sst2 --checkpoint=runs/sst2 \
    --out=runs/sst2/scores.json --config.data.text=sentence
python -m bert_jax.bin.train --config=configs/finetune/classify.py --workdir=runs/moods \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4 \
    --config.data.source='mine/{split}.csv' --config.data.text=body --config.data.label=mood

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
    config.task = dict(name='classify')
    config.model = dict(name='bert')
    config.data = dict(source=source, length=128)
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='accuracy')
    return config
