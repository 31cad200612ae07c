"""A BERT of mini size (4 layers, 256 wide) that learns on one GPU within minutes.

python -m bert_jax.bin.train --config=configs/pretrain/gpu.py --workdir=runs/english \
    --config.data.sources="novels_en.txt.gz,wiki_articles"
"""

from ml_collections import ConfigDict

from configs.pretrain import cpu


def get_config() -> ConfigDict:
    config = cpu.get_config('256')
    config.model.dtype = 'bfloat16'
    # 282 million tokens, the last part in rows as long as the windows of question answering.
    config.train = dict(
        batch_size=256,
        phases=((8_000, 128, 256), (640, 384, 80)),
        workers=6,
        log_every=200,
        eval_every=2000,
        eval_rows=2048,
        eval_batch_size=256,
    )
    config.checkpoint = dict(every=5000)
    return config
