"""GPT-2 (Radford et al. 2019), in the sizes small, medium, large and xl.

python -m bert_jax.bin.train --config=configs/pretrain/gpt.py:small --workdir=runs/gpt-small \
    --config.data.sources="wikipedia/20230601.en"

300,000 updates of 524,288 tokens. The learning rates are those of GPT-3 (Brown et al. 2020, table 2.1), because those
of GPT-2 were not published. Needs many accelerators, and has not been run with this code; for CPU cores, use
configs/pretrain/cpu_gpt.py.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Learning rates of GPT-3 models of these widths (table 2.1).
RATES = {'small': 6e-4, 'medium': 3e-4, 'large': 2.5e-4, 'xl': 2e-4}


def get_config(arg: str = 'small') -> ConfigDict:
    """`arg` is the size: small, medium, large or xl."""
    check_argument(arg, tuple(RATES))
    config = new_config()
    config.task = dict(name='clm', loss_chunk=128)
    config.model = dict(name='gpt', size=arg, dtype='bfloat16', dropout=0.0, attention_dropout=0.0)
    config.data = dict(sources=('pydocs/text',), length=1024)
    config.tokenizer = dict(kind='bpe', vocab_size=50_257)
    config.optim = dict(learning_rate=RATES[arg], warmup=700, b2=0.95, weight_decay=0.1)
    config.train = dict(steps=300_000, batch_size=512, log_every=100, eval_every=10_000, eval_rows=1024)
    config.checkpoint = dict(every=10_000)
    return config
