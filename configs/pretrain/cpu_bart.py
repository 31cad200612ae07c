"""A BART of 2 encoder and 2 decoder layers, 256 wide, for two CPU cores.

python -m bert_jax.bin.train --config=configs/pretrain/cpu_bart.py --workdir=runs/bart \
    --config.data.sources=en=novels_en.txt.gz,de=novels_de.txt.gz --config.data.sampling_exponent=0.7 \
    --config.train.steps=2200

With these 2,200 updates on public-domain novels: held-out losses of 3.97 (English) and 4.49 (German) nats per token, in
43 minutes on one core (one seed). The default, 6,000 updates, takes about two hours. In place of the novels, pass your
own text files (docs/guides/own_text.md).
"""

from ml_collections import ConfigDict

from configs import new_config
from configs.pretrain import cpu


def get_config() -> ConfigDict:
    config = new_config()
    config.task = dict(name='denoise', noise=('permute', 'infill'), rate=0.3)
    config.model = dict(name='bart', size='mini', layers=2, **cpu.MODERN_BLOCKS)
    config.data = dict(sources=('pydocs/text',), length=128)
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=6_000, batch_size=32, log_every=50, eval_every=1000, eval_rows=512)
    config.checkpoint = dict(every=1000)
    return config
