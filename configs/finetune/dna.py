"""DNA classification with a model of English text: splice junctions, histone marks, promoters (Kao & Lee 2021).

python -m bert_jax.bin.train --config=configs/finetune/dna.py:splice --workdir=runs/splice \
    --config.init.checkpoint=runs/english

The argument is splice, h3, h3k9ac or promoter_core. From a checkpoint of configs/pretrain/gpu.py, with three
nucleotides per token (--config.task.kmer=3 --config.task.stride=3), the accuracy in percent over five seeds is splice
94.7 ± 1.1, promoter_core 79.9 ± 0.9, h3 75.1 ± 0.8, h3k9ac 64.4 ± 1.7. configs/tables/dna.py:small repeats these runs
and their controls, 60 in all, in 75 minutes on two cores. The controls are --config.init.weights=reinit_embeddings,
which keeps only the pretrained layers, and --config.init.weights=random, which keeps nothing. For other data, set
--config.data.source='data/{split}.csv', with the columns sequence and label.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Evaluation split, and length of the longest sequence with its two special tokens.
SETS = {
    'splice': ('validation', 62),
    'h3': ('test', 502),
    'h3k9ac': ('test', 502),
    'promoter_core': ('validation', 72),
}


def get_config(arg: str = 'splice') -> ConfigDict:
    """`arg` is splice, h3, h3k9ac or promoter_core."""
    check_argument(arg, tuple(SETS))
    split, length = SETS[arg]
    config = new_config()
    config.task = dict(name='dna')
    config.model = dict(name='bert')
    config.data = dict(source=f'dna/{arg}', text='sequence', eval_split=split, length=length)
    config.optim = dict(learning_rate=1e-4, warmup=0.1)
    config.train = dict(steps='10 epochs', batch_size=32, eval_every=0.05, log_every=0.05)
    config.checkpoint = dict(every=1.0, best_metric='accuracy')
    return config
