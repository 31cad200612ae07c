"""Text embeddings: similarity (STS-B, SICK), inference (nli_small), questions and answers (medquad), or your own pairs.

python -m bert_jax.bin.train --config=configs/finetune/embed.py:stsb --workdir=runs/embed \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4
python -m bert_jax.bin.eval_embed --config=configs/finetune/embed.py:stsb --checkpoint=runs/embed --out=runs/embed/stsb.json

`:stsb` and `:sick` learn the similarity of pairs, `:nli` the classes of pairs (SBERT, Reimers & Gurevych 2019), `:medquad` to
find the answer to a question among those of the batch, and `:simcse` the same for two encodings of one sentence with
different dropout (Gao et al. 2021). For your own pairs, set data.source and data.texts. The learning rate suits BERT base,
3e-4 models of a few million parameters.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Task, data.
TASKS: dict[str, tuple[dict, dict]] = {
    'stsb': (dict(objective='cosine'), dict(source='glue/stsb', label_scale=5.0)),
    'sick': (
        dict(objective='cosine'),
        dict(
            source='sick',
            texts=('sentence_A', 'sentence_B'),
            label='relatedness_score',
            label_scale=5.0,
            eval_split='test',
        ),
    ),
    'nli': (dict(objective='classes'), dict(source='nli_small', texts=('premise', 'hypothesis'))),
    'medquad': (
        dict(objective='contrastive', symmetric=True),
        dict(source='medquad', texts=('question', 'answer'), eval_split='test', length=256),
    ),
    'simcse': (dict(objective='contrastive'), dict(source='nli_small', texts=('premise',))),
}


def get_config(arg: str = 'stsb') -> ConfigDict:
    """`arg` is stsb, sick, nli, medquad or simcse."""
    check_argument(arg, tuple(TASKS))
    task, data = TASKS[arg]
    config = new_config()
    config.task = dict(name='embed', **task)
    config.model = dict(name='bert')
    config.data = dict(length=64) | data
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='2 epochs', batch_size=64 if task['objective'] == 'contrastive' else 32)
    config.checkpoint = dict(best_metric={'cosine': 'spearman'}.get(task['objective'], 'accuracy'))
    return config
