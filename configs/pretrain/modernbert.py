"""ModernBERT (Warner et al. 2024, arXiv 2412.13663) in the sizes 17m, 32m, 68m, base and large, the small ones of Ettin.

python -m bert_jax.bin.train --config=configs/pretrain/modernbert.py:base --workdir=runs/modernbert \
    --config.data.sources="c4/en"

Two trillion tokens, which no run of this code has seen. On 16 TPU v5e chips, 17m, 32m, 68m and base need 2.9, 3.9, 6.0 and
9.8 GiB per chip in the phase of 8,192 tokens, and take 23, 52, 139 and 314 hours at half of the peak speed: 370, 837, 2,223
and 5,030 chip-hours, to multiply by the price of one. large needs 16.0 GiB per chip there, more than a v5e has. On 16 v6e
chips it needs 17.0 GiB and takes 185 hours, 2,951 chip-hours. The commands are, for base and for the other sizes, whose
growing batch is left out:

python -m bert_jax.bin.plan --config=configs/pretrain/modernbert.py:base --topology=v5e:4x4
python -m bert_jax.bin.plan --config=configs/pretrain/modernbert.py:large --topology=v6e:4x4 \
    --config.train.phases="((360_000, 1024, 4608), (63_579, 8192, 576, 'model.rope_base=160_000.0'))"

For the recipe on two CPU cores, modernbert.py:cpu: masked-LM loss 3.99 (docs/guides/recipes.md).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.pretrain import cpu

# Layers, width, heads, feed-forward width and learning rate: base and large from section 2 and appendix A of the paper,
# the others from Weller et al. 2025 (arXiv 2507.11412).
SIZES = {
    '17m': (7, 256, 4, 384, 3e-3),
    '32m': (10, 384, 6, 576, 3e-3),
    '68m': (19, 512, 8, 768, 3e-3),
    'base': (22, 768, 12, 1152, 8e-4),
    'large': (28, 1024, 16, 2624, 5e-4),
}


def get_config(arg: str = 'base') -> ConfigDict:
    """`arg` is the size: 17m, 32m, 68m, base or large; or cpu, a small model of the same recipe for two CPU cores."""
    check_argument(arg, (*SIZES, 'cpu'))
    if arg == 'cpu':
        return cpu.get_config('modern')
    layers, width, heads, mlp_width, learning_rate = SIZES[arg]
    config = new_config()
    config.task = dict(name='mlm', sentence_objective='none', pack_documents=True, mask_rate=0.3)
    blocks = dict(norm_placement='pre', norm_bias=False, first_norm=False, use_bias=False, gated_mlp=True)
    config.model = dict(
        name='bert', layers=layers, width=width, heads=heads, mlp_width=mlp_width, segments=0, **blocks,
        prediction_head=True, norm_eps=1e-5, rope_base=10_000.0, local_rope_base=10_000.0, window=64, global_every=3,
        dropout=0.0, attention_dropout=0.0, dtype='bfloat16', remat='full',
    )  # fmt: skip
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(kind='bpe', vocab_size=50_368)
    # The paper lowers the learning rate for the long rows. Here it stays, and decays over the last 50 billion tokens.
    config.optim = dict(
        name='stable_adamw', learning_rate=learning_rate, weight_decay=1e-5, b2=0.98, clip_norm=0.0,
        schedule='wsd', warmup='2.9e6 examples', decay='6.1e6 examples', decay_shape='1-sqrt',
    )  # fmt: skip
    # 50 billion tokens in which the batch grows, up to 1.7 trillion in rows of 1,024, and 300 billion in rows of 8,192.
    growing = tuple((f'{10e9 / 1024:.0f} examples', 1024, rows) for rows in (768, 1536, 2304, 3072, 3840))
    config.train = dict(
        phases=(
            *growing,
            (f'{1.65e12 / 1024:.0f} examples', 1024, 4608),
            (f'{300e9 / 8192:.0f} examples', 8192, 576, 'model.rope_base=160_000.0'),
        ),
        accumulation_steps=12,
        log_every=100,
        eval_every=10_000,
        eval_rows=4096,
    )
    config.checkpoint = dict(every=5_000)
    return config
