"""ELECTRA (Clark et al. 2020, arXiv 2003.10555) in the sizes small and base, and for two CPU cores.

python -m bert_jax.bin.train --config=configs/pretrain/electra.py:base --workdir=runs/electra \
    --config.data.sources="wikipedia/20230601.en"

base makes 766,000 updates of 256 rows of 512 tokens, small a million of 128 rows of 128 tokens. On H100 GPUs,
`python -m bert_jax.bin.plan --config=configs/pretrain/electra.py:base --topology=h100:8` estimates 27 chip-hours for base
at half of the peak speed, and 2 for small. A complete run has not been made with this code, neither of these sizes nor of
electra.py:cpu, which has 4 layers, 128 wide.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Layers, width, heads, feed-forward width, width of the embeddings (0: that of the model), size of the generator, learning
# rate, steps, length and number of rows: table 6 of the paper.
SIZES = {
    'small': (12, 256, 4, 1024, 128, 1 / 4, 5e-4, 1_000_000, 128, 128),
    'base': (12, 768, 12, 3072, 0, 1 / 3, 2e-4, 766_000, 512, 256),
}


def get_config(arg: str = 'base') -> ConfigDict:
    """`arg` is the size, small or base; or cpu, a small model for two CPU cores."""
    check_argument(arg, (*SIZES, 'cpu'))
    if arg == 'cpu':
        return _get_cpu_config()
    layers, width, heads, mlp_width, embedding_width, generator_size, learning_rate, steps, length, rows = (
        SIZES[arg]
    )
    config = new_config()
    config.task = dict(name='rtd', generator_size=generator_size)
    config.model = dict(
        name='bert',
        layers=layers,
        width=width,
        heads=heads,
        mlp_width=mlp_width,
        embedding_width=embedding_width,
        pooler_activation='gelu',
        dtype='bfloat16',
    )
    config.data = dict(sources=('pydocs/text',), length=length)
    config.tokenizer = dict(vocab_size=30_522)
    config.optim = dict(learning_rate=learning_rate, warmup=10_000, bias_correction=False)
    config.train = dict(steps=steps, batch_size=rows, log_every=100, eval_every=10_000, eval_rows=4096)
    config.checkpoint = dict(every=10_000)
    return config


def _get_cpu_config() -> ConfigDict:
    """A model as wide and deep as that of configs/pretrain/cpu.py, with the blocks of ELECTRA."""
    config = new_config()
    config.task = dict(name='rtd')
    config.model = dict(
        name='bert',
        size='mini',
        width=128,
        heads=2,
        mlp_width=512,
        max_positions=128,
        pooler_activation='gelu',
        dropout=0.0,
        attention_dropout=0.0,
    )
    config.data = dict(sources=('pydocs/text',), length=128)
    config.tokenizer = dict(vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=3_000, batch_size=32, log_every=50, eval_every=500, eval_rows=1024)
    config.checkpoint = dict(every=500)
    return config
