"""Text embeddings: similarity (STS-B, SICK), inference (nli_small), questions and answers (medquad), or your own pairs.

python -m bert_jax.bin.train --config=configs/finetune/embed.py:stsb --workdir=runs/embed \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4
python -m bert_jax.bin.eval_embed --config=configs/finetune/embed.py:stsb --checkpoint=runs/embed --out=runs/embed/stsb.json

`:stsb` and `:sick` learn the similarity of pairs, `:nli` the classes of pairs (SBERT, Reimers & Gurevych 2019), `:medquad` to
find the answer to a question among those of the batch, and `:simcse` the same for two encodings of one sentence with
different dropout (Gao et al. 2021). From four minutes of pretraining on one core (configs/tables/recipes.py, ModernBERT with
AdamW), `:stsb` reaches a Spearman correlation of 70.3 on the validation split (one seed). The learning rate suits BERT base,
3e-4 models of a few million parameters. For your own texts, the argument is a TFDS name or a path:

python -m bert_jax.bin.train --config=configs/finetune/embed.py:'mine/{split}.jsonl' --workdir=runs/mine \
    --config.init.checkpoint=runs/english --config.data.texts=question,answer
"""

from ml_collections import ConfigDict

from configs import new_config

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


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is stsb, sick, nli, medquad or simcse, or a TFDS name or a path of your own texts."""
    task, data = TASKS.get(arg, ({}, dict(source=arg)))
    config = new_config()
    config.task = dict(name='embed', **task)
    config.model = dict(name='bert')
    config.data = dict(length=64) | data
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='2 epochs', batch_size=32 if task.get('objective') == 'cosine' else 64)
    return config
