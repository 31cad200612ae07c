"""BART (Lewis et al. 2020): restore shuffled sentences and masked spans, in the sizes base and large.

python -m bert_jax.bin.train --config=configs/pretrain/bart.py:base --workdir=runs/bart-base \
    --config.data.sources="wikipedia/20230601.en"

500,000 updates of 8,000 rows, as published for the large model. The learning rates are those of RoBERTa (Liu et al.
2019, table 9), because those of BART were not published. Needs many accelerators: with gradient accumulation, base takes
11.6 and large 13.8 of 15.75 GiB on each of 16 TPU v5e chips, according to bert_jax.bin.plan. Has not been run with this
code; for CPU cores, use configs/pretrain/cpu_bart.py. For other objectives, set --config.task.noise=mass
--config.task.rate=0.5 (MASS) or --config.task.noise=spans --config.task.rate=0.15 (T5).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Learning rates of RoBERTa models of these sizes (table 9).
RATES = {'base': 6e-4, 'large': 4e-4}
# Parts of a batch, so that a part fits into the memory of 16 chips with 16 GiB.
ACCUMULATION_STEPS = {'base': 25, 'large': 100}


def get_config(arg: str = 'base') -> ConfigDict:
    """`arg` is the size: base or large."""
    check_argument(arg, tuple(RATES))
    config = new_config()
    config.task = dict(name='denoise', noise=('permute', 'infill'), rate=0.3, loss_chunk=128)
    config.model = dict(name='bart', size=arg, dtype='bfloat16')
    config.data = dict(sources=('pydocs/text',), length=512)
    config.tokenizer = dict(kind='bpe', vocab_size=50_265)
    config.optim = dict(learning_rate=RATES[arg], warmup=24_000, b2=0.98)
    config.train = dict(steps=500_000, batch_size=8_000, log_every=100, eval_every=10_000, eval_rows=4096)
    config.train.accumulation_steps = ACCUMULATION_STEPS[arg]
    config.checkpoint = dict(every=10_000)
    return config
