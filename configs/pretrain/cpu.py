"""A BERT of 4 layers, 128 or 192 wide, for two CPU cores.

python -m bert_jax.bin.train --config=configs/pretrain/cpu.py --workdir=runs/english \
    --config.data.sources="novels_en.txt.gz,wiki_articles"

On 66 MB of novels and Wikipedia articles (docs/results/models.md): masked-LM loss 3.38 and next-sentence accuracy 72 %
in 50 minutes on two cores; 192 wide (cpu.py:192), 3.30 and 78 % in 64 minutes (one seed each). In place of these files,
pass your own text (docs/guides/own_text.md).

cpu.py:modern shows a modern recipe (docs/guides/recipes.md): masked-LM loss 3.99 in 400 steps on 4M tokens of the
documentation of the installed packages, in a few minutes (one seed). cpu.py:diffusion trains the same model to write text
(docs/guides/generation.md).
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# With pre-norm blocks and rotary positions, the model uses context after hundreds of updates, not thousands.
MODERN_BLOCKS = dict(norm_placement='pre', rope_base=10_000.0, dropout=0.0, attention_dropout=0.0)


def get_config(arg: str = '128') -> ConfigDict:
    """`arg` is the width: 128 (as in BERT-Tiny), 192, or 256 (as in BERT-Mini); 'modern', a recipe of today; or 'diffusion'."""
    check_argument(arg, ('128', '192', '256', 'modern', 'diffusion'))
    if arg == 'modern':
        return _get_modern_config()
    if arg == 'diffusion':
        config = _get_modern_config()
        config.task.diffusion = True
        config.train.phases = ((50, 128, 16), (350, 128, 32))
        return config
    width = int(arg)
    config = new_config()
    config.task = dict(name='mlm')
    config.model = dict(
        name='bert', size='mini', width=width, heads=width // 64, mlp_width=4 * width, **MODERN_BLOCKS
    )
    config.data = dict(sources=('pydocs/text',), length=128)
    config.tokenizer = dict(vocab_size=8192)
    config.optim = dict(learning_rate=1e-3, warmup=0.05, b2=0.98)
    config.train = dict(steps=9_000, batch_size=32, log_every=50, eval_every=1000, eval_rows=1024)
    if width > 128:  # the last tenth in rows as long as the windows of question answering
        config.train.phases = ((8_000, 128, 32), (800, 384, 10))
    config.checkpoint = dict(every=1000)
    return config


def _get_modern_config() -> ConfigDict:
    """The recipe of ModernBERT (Warner et al. 2024) with Muon in 400 steps: phases, a stable learning rate, a decay."""
    config = new_config()
    # Documents share rows without attention between them; there is no next-sentence prediction.
    config.task = dict(name='mlm', sentence_objective='none', pack_documents=True)
    blocks = dict(norm_bias=False, first_norm=False, use_bias=False, gated_mlp=True, prediction_head=True)
    attention = dict(window=64, global_every=3, local_rope_base=10_000.0)  # layers 0 and 3 are global
    config.model = dict(
        name='bert',
        size='mini',
        width=128,
        heads=2,
        mlp_width=256,
        segments=0,
        **MODERN_BLOCKS,
        **blocks,
        **attention,
    )
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(vocab_size=8192)
    schedule = dict(schedule='wsd', warmup=40, decay=80, decay_shape='1-sqrt')
    config.optim = dict(name='muon', learning_rate=2e-3, muon_rms=1.0, b2=0.98, **schedule)
    config.train = dict(
        phases=(
            (50, 128, 16, 'task.mask_rate=0.3'),  # the batch size grows
            (270, 128, 32, 'task.mask_rate=0.3'),
            (80, 512, 8, 'model.rope_base=40_000.0'),  # longer rows, while the learning rate decays
        ),
        log_every=10,
        eval_every=100,
        eval_rows=256,
    )
    config.checkpoint = dict(every=20, keep=5)
    return config
