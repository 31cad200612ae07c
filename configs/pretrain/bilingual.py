"""A BERT of two languages, one of them fake: each of its words is the double of a real one (see data/fake_language.py).

python -m bert_jax.bin.train --config=configs/pretrain/bilingual.py --workdir=runs/bilingual --config.data.sources=novels_en.txt.gz

Its parts can be taken away, one by one or together: --config.task.special=own, positions=own, order=inverted, paired=false;
a model of more width has less need to share.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='bilingual', next='none', short_rate=0.0)
    # Small enough that the languages must share it (Dufter & Schütze 2020, section 2.2).
    config.model = dict(
        name='bert',
        size='tiny',
        width=64,
        heads=4,
        mlp=256,
        norm='pre',
        positions=128,
        dropout=0.0,
        attention_dropout=0.0,
    )
    config.data = dict(sources=('pydocs/text',), length=64, validation_fraction=0.02)
    config.tokenizer = dict(vocab_size=2048)
    config.optim = dict(learning_rate=2e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=6_000, batch_size=64, log_every=100, eval_every=1000, eval_rows=2048)
    config.checkpoint = dict(every=1000)
    return config
