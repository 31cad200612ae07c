"""DNA: splice junctions, histone marks and promoters, in word pieces drawn at random (Kao & Lee 2021).

python -m bert_jax.bin.train --config=configs/finetune/dna.py:splice --workdir=runs/splice --config.init.checkpoint=runs/english

--config.init.weights=body keeps the pretrained layers and draws the vectors of words anew, random draws all.
Data of your own: --config.data.source='data/{split}.csv' with columns sequence and label.
"""

from ml_collections import ConfigDict

# The split to score, and the longest sequence with its two special tokens.
SETS = {
    'splice': ('validation', 62),
    'h3': ('test', 502),
    'h3k9ac': ('test', 502),
    'promoter_core': ('validation', 72),
}


def get_config(arg: str = 'splice') -> ConfigDict:
    """`arg` is splice, h3, h3k9ac or promoter_core."""
    split, length = SETS[arg]
    config = ConfigDict()
    config.task = dict(name='dna')
    config.model = dict(name='bert')
    config.data = dict(source=f'dna/{arg}', text='sequence', eval_split=split, length=length)
    config.init = dict(checkpoint='', weights='pretrained')
    config.optim = dict(learning_rate=1e-4, warmup=0.1)
    config.train = dict(steps='10 epochs', batch_size=32, eval_every=0.05, log_every=0.05)
    config.checkpoint = dict(every=1.0, best='accuracy')
    return config
