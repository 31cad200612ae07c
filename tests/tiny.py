"""Configs for tests: a BERT of 2 layers and width 32."""

from ml_collections import ConfigDict


def get_config(arg: str) -> ConfigDict:
    """`arg` is 'pretrain' or 'classify'; data.sources or data.source must be overridden."""
    config = ConfigDict()
    config.model = dict(name='bert', size='tiny', width=32, mlp_width=64, max_positions=64)
    config.mesh = dict(strategy='dp')
    config.optim = dict(learning_rate=1e-3, warmup=2)
    config.train = dict(
        steps=20,
        batch_size=16,
        log_every=1,
        eval_every=10,
        eval_batch_size=16,
        length_buckets=1,  # compiles the step once
    )
    config.checkpoint = dict(every=1.0)
    if arg == 'pretrain':
        config.task = dict(name='mlm')
        config.data = dict(sources=('corpus.txt',), length=32, validation_fraction=0.2, workers=1)
        config.tokenizer = dict(vocab_size=200)
    else:
        config.task = dict(name='classify')
        config.data = dict(source='{split}.jsonl', text='text', length=32)
    return config
