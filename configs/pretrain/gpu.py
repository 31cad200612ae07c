"""A BERT of 4 layers, 256 wide, for one GPU.

python -m bert_jax.bin.train --config=configs/pretrain/gpu.py --workdir=runs/english \
    --config.data.sources="novels_en.txt.gz,wiki_articles"

On 66 MB of novels and Wikipedia articles (docs/results/models.md): masked-LM loss 2.64 and next-sentence accuracy 88.3
% (one seed), in less than eight minutes on an H200 that trained two other models at the same time. In place of these
files, pass your own text (docs/guides/own_text.md).
"""

from ml_collections import ConfigDict

from configs.pretrain import cpu


def get_config() -> ConfigDict:
    config = cpu.get_config('256')
    config.model.dtype = 'bfloat16'
    # 282 million tokens, the last of them in rows as long as the windows of question answering.
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
