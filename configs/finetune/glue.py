"""The tasks of GLUE (Wang et al. 2018, arXiv 1804.07461) as BERT learns them (Devlin et al. 2019, section 4.1).

python -m bert_jax.bin.train --config=configs/finetune/glue.py:mrpc --workdir=runs/mrpc --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_classify --config=configs/finetune/glue.py:mrpc --checkpoint=runs/mrpc --out=runs/mrpc/scores.json
python -m bert_jax.bin.predict --checkpoint=runs/mrpc --input=glue/mrpc --output=MRPC.tsv --numbers

stsb is scored by eval_regress. MNLI's second development set is --config.data.eval_split=validation_mismatched. The
GLUE server wants names for mnli, qnli and rte, numbers for the rest. Small models learn faster: 3e-4.
"""

from ml_collections import ConfigDict

TASKS = {
    'cola': ('sentence', ''),
    'sst2': ('sentence', ''),
    'mrpc': ('sentence1', 'sentence2'),
    'stsb': ('sentence1', 'sentence2'),
    'qqp': ('question1', 'question2'),
    'mnli': ('premise', 'hypothesis'),
    'qnli': ('question', 'sentence'),
    'rte': ('sentence1', 'sentence2'),
    'wnli': ('sentence1', 'sentence2'),
}
# The score by which the best checkpoint is kept.
BEST = {'cola': 'matthews', 'mrpc': 'f1', 'qqp': 'f1', 'stsb': 'correlation'}


def get_config(arg: str) -> ConfigDict:
    """`arg` is the name of the task."""
    text, second = TASKS[arg]
    config = ConfigDict()
    config.task = dict(name='regress' if arg == 'stsb' else 'classify')
    config.model = dict(name='bert')
    config.data = dict(source=f'glue/{arg}', text=text, second=second, length=128)
    if arg == 'mnli':
        config.data.eval_split = 'validation_matched'
    config.init = dict(checkpoint='', weights='pretrained')
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best=BEST.get(arg, 'accuracy'))
    return config
