"""Answer questions by a span of a context, from any TFDS data set or files.

python -m bert_jax.bin.train --config=configs/finetune/qa.py:squad/v1.1 --workdir=runs/squad \
    --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_qa --config=configs/finetune/qa.py:squad/v1.1 --checkpoint=runs/squad \
    --out=runs/squad/scores.json
python -m bert_jax.bin.train --config=configs/finetune/qa.py --workdir=runs/mine \
    --config.init.checkpoint=runs/english --config.data.source='mine/{split}.json'

The argument, or --config.data.source, is a TFDS name or a path in which {split} stands for train and validation. The
fields are question, context, answers and id unless data.question, data.context, data.answers and data.id name others. If
some questions have no answer, set --config.task.no_answer=true. Scores and duration depend on the data;
--config.init.weights=random gives the baseline without pretraining. The learning rate suits BERT base, 3e-4 models of a
few million parameters. configs/finetune/squad.py has the settings of SQuAD 2.0, XQuAD, MLQA and DRCD.
"""

from ml_collections import ConfigDict

from configs import new_config


def get_config(source: str = '') -> ConfigDict:
    """`source` is a TFDS name or a path; if it is empty, set data.source."""
    config = new_config()
    config.task = dict(name='qa')
    config.model = dict(name='bert')
    config.data = dict(source=source, length=384, stride=128)
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='2 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='f1')
    return config
