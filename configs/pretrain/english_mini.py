"""BERT mini on 19M tokens of English novels and Wikipedia articles; about forty minutes on two cores.

python -m bert_jax.bin.train --config=configs/pretrain/english_mini.py --workdir=runs/english_mini \
    --config.data.sources="('novels_en.txt.gz', 'wiki_articles')"
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='mlm')
    config.model = dict(name='bert', size='mini', positions=128, dropout=0.0, attention_dropout=0.0)
    config.data = dict(sources=('novels_en.txt.gz', 'wiki_articles'), length=128)
    config.tokenizer = dict(vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.1)
    config.train = dict(steps=3000, batch_size=64, eval_every=500, eval_rows=1024)
    config.checkpoint = dict(every=500)
    return config
