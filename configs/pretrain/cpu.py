"""BERTs that learn on two CPU cores: 4 layers, 128 wide, within the hour; 256 wide (BERT-Mini) in some hours.

python -m bert_jax.bin.train --config=configs/pretrain/cpu.py --workdir=runs/english \
    --config.data.sources="novels_en.txt.gz,wiki_articles"

On 66 MB of novels and Wikipedia articles: masked-LM loss 3.38, next sentence 72 %, after 50 minutes on two cores.
"""

from ml_collections import ConfigDict


def get_config(arg: str = 'tiny') -> ConfigDict:
    """`arg` is the width: that of BERT-Tiny, or that of BERT-Mini."""
    config = ConfigDict()
    config.task = dict(name='mlm')
    # Pre-norm blocks and rotary positions: context counts after hundreds of updates, not thousands.
    config.model = dict(
        name='bert', size=arg, layers=4, norm='pre', rotary=10_000.0, dropout=0.0, attention_dropout=0.0
    )
    config.data = dict(sources=('pydocs/text',), length=128)
    config.tokenizer = dict(vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=9_000, batch_size=32, log_every=50, eval_every=1000, eval_rows=1024)
    if arg == 'mini':  # The last tenth in rows as long as the windows of question answering.
        config.train.phases = ((9_000, 128, 32), (1_000, 384, 10))
    config.checkpoint = dict(every=1000)
    return config
