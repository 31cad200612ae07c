"""BERT as published (Devlin et al. 2019, appendix A.2), in the sizes tiny, mini, small, medium, base and large.

python -m bert_jax.bin.train --config=configs/pretrain/bert.py:base --workdir=runs/bert-base \
    --config.data.sources="wikipedia/20230601.en"

1,000,000 updates of 256 rows: the first nine tenths with rows of 128 tokens, the rest with rows of 512. Needs
accelerators: bert_jax.bin.plan estimates at least 2.7 hours for base on 16 TPU v5e chips. A complete run has not been
made with this code. For CPU cores, use configs/pretrain/cpu.py.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config


def get_config(arg: str = 'base') -> ConfigDict:
    """`arg` is the size: tiny, mini, small, medium, base or large."""
    check_argument(arg, ('tiny', 'mini', 'small', 'medium', 'base', 'large'))
    config = new_config()
    config.task = dict(name='mlm')
    config.model = dict(name='bert', size=arg, dtype='bfloat16')
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(vocab_size=30_522)
    config.optim = dict(learning_rate=1e-4, warmup=10_000, bias_correction=False)
    config.train = dict(
        phases=((900_000, 128, 256), (100_000, 512, 256)), log_every=100, eval_every=10_000, eval_rows=4096
    )
    config.checkpoint = dict(every=10_000)
    return config
