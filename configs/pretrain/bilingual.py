"""A small BERT of a language and its fake copy, whose tokens translate one to one (bert_jax/data/fake_language.py).

python -m bert_jax.bin.train --config=configs/pretrain/bilingual.py --workdir=runs/bilingual \
    --config.data.sources=novels_en.txt.gz --config.train.steps=9000
python -m bert_jax.bin.study_language --checkpoint=runs/bilingual --out=runs/bilingual/language

After these 9,000 updates on English novels (9 minutes on one CPU core), the study finds translations with a mean
reciprocal rank of 0.49 in the first layer (chance is below 0.01; one seed). The default is 6,000 updates. To remove
what the languages share, set --config.task.special_tokens=separate, position_embeddings=separate, word_order=inverted
or parallel_corpus=false. Wider models align less.
"""

from ml_collections import ConfigDict

from configs import new_config


def get_config() -> ConfigDict:
    config = new_config()
    config.task = dict(name='bilingual', sentence_objective='none', short_sequence_rate=0.0)
    # So small that the languages must share parameters (Dufter & Schütze 2020, section 2.2).
    config.model = dict(
        name='bert',
        size='tiny',
        width=64,
        heads=4,
        mlp_width=256,
        norm_placement='pre',
        max_positions=128,
        dropout=0.0,
        attention_dropout=0.0,
    )
    config.data = dict(sources=('pydocs/text',), length=64, validation_fraction=0.02)
    config.tokenizer = dict(vocab_size=2048)
    config.optim = dict(learning_rate=2e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=6_000, batch_size=64, log_every=100, eval_every=1000, eval_rows=2048)
    config.checkpoint = dict(every=1000)
    return config
