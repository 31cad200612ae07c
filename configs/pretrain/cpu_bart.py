"""A BART that learns on two CPU cores: 2 + 2 layers, 256 wide, pre-norm blocks and rotary positions.

python -m bert_jax.bin.train --config=configs/pretrain/cpu_bart.py --workdir=runs/bart --config.data.sources=novels_en.txt.gz
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = dict(name='denoise', noise=('permute', 'infill'), rate=0.3)
    config.model = dict(
        name='bart', size='mini', layers=2, norm='pre', rotary=10_000.0, dropout=0.0, attention_dropout=0.0
    )
    config.data = dict(sources=('pydocs/text',), length=128)
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=6_000, batch_size=32, log_every=50, eval_every=1000, eval_rows=512)
    config.checkpoint = dict(every=1000)
    return config
