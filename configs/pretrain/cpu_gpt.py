"""A GPT of 4 layers, 256 wide, for two CPU cores.

python -m bert_jax.bin.train --config=configs/pretrain/cpu_gpt.py --workdir=runs/gpt \
    --config.data.sources=novels_en.txt.gz --config.train.steps=3800
python -m bert_jax.bin.generate --checkpoint=runs/gpt "The captain looked at the"

With these 3,800 updates on public-domain novels: 1.46 bits per byte on held-out text (perplexity 52.8 per token), in 72
minutes on one core (one seed). The default, 6,000 updates, takes about two hours. In place of novels_en.txt.gz, pass
your own text files (docs/guides/own_text.md).
"""

from ml_collections import ConfigDict

from configs import new_config


def get_config() -> ConfigDict:
    config = new_config()
    config.task = dict(name='clm')
    config.model = dict(name='gpt', size='mini', rope_base=10_000.0, dropout=0.0, attention_dropout=0.0)
    config.data = dict(sources=('pydocs/text',), length=256)
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=6_000, batch_size=16, log_every=50, eval_every=1000, eval_rows=256)
    config.checkpoint = dict(every=1000)
    return config
