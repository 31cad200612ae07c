"""BERT as published (Devlin et al. 2019, appendix A.2), of any size, on the text of your choice.

python -m bert_jax.bin.train --config=configs/pretrain/bert.py:base --workdir=runs/bert-base \
    --config.data.sources="wikipedia/20230601.en"

A million updates of 256 rows, for accelerators: rows of 128 tokens for nine tenths of them, of 512 for
the rest. On CPU cores begin with configs/pretrain/cpu.py.
"""

from ml_collections import ConfigDict


def get_config(arg: str = 'base') -> ConfigDict:
    """`arg` is the size: tiny, mini, small, medium, base or large."""
    config = ConfigDict()
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
