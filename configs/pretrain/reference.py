"""Reference models for two CPU cores: an encoder, a multilingual encoder, a decoder and a denoiser.

python -m bert_jax.bin.train --config=configs/pretrain/reference.py:encoder,cpu --workdir=runs/encoder \
    --config.data.sources=encyclopedia_en.txt.gz,dialogue_en.txt.gz,novels_en.txt.gz

Each reads 37 million tokens, and all export to Hugging Face: the encoders as ModernBERT, the decoder as Qwen3, the denoiser
as T5. Only the encoder has been trained, in 64 minutes on two busy cores: masked-LM loss 3.02 (one seed), BLiMP and more in
docs/results/emergence.md. For the multilingual encoder, name the languages:
--config.data.sources=en=encyclopedia_en.txt.gz,zh=encyclopedia_zh.txt.gz,de=novels_de.txt.gz
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.pretrain import cpu

SHAPE = dict(width=192, heads=3, mlp_width=512, dropout=0.0, attention_dropout=0.0)
LLM_BLOCKS = dict(norm_placement='pre', norm_kind='rms', use_bias=False, gated_mlp=True)
LANGUAGES = ('en', 'zh', 'de', 'fr', 'es')


def get_config(arg: str = 'encoder,cpu') -> ConfigDict:
    """`arg` is encoder,cpu, multilingual,cpu, decoder,cpu or denoiser,cpu."""
    check_argument(arg, ('encoder,cpu', 'multilingual,cpu', 'decoder,cpu', 'denoiser,cpu'))
    make = {'encoder': _encoder, 'multilingual': _multilingual, 'decoder': _decoder, 'denoiser': _denoiser}
    config = make[arg.partition(',')[0]]()
    # The batch size grows. The last rows are longer, while the learning rate decays.
    masking = ('task.mask_rate=0.3',) if config.task.name == 'mlm' else ()
    base = ('model.rope_base=40_000.0',) if config.model.get('rope_base') else ()
    config.train = dict(
        phases=((4_000, 128, 16, *masking), (5_500, 128, 32, *masking), (1_500, 512, 8, *base)),
        log_every=100,
        eval_every=2_000,
        eval_rows=1_024,
    )
    schedule = dict(schedule='wsd', warmup=500, decay=0.2, decay_shape='1-sqrt')
    config.optim = dict(learning_rate=2e-3, b2=0.98, **schedule)
    config.checkpoint = dict(every=250, keep=200)
    return config


def _encoder() -> ConfigDict:
    config = cpu.get_config('modern')
    config.model.update(layers=6, **SHAPE)  # layers 0 and 3 are global
    return config


def _multilingual() -> ConfigDict:
    config = _encoder()
    config.data.sources = tuple(f'{name}=wikipedia/20230601.{name}' for name in LANGUAGES)
    config.data.sampling_exponent = 0.7
    config.tokenizer = dict(lowercase=False, vocab_size=16_384)
    return config


def _decoder() -> ConfigDict:
    config = new_config()
    config.task = dict(name='clm')
    config.model = dict(
        name='gpt', layers=6, rope_base=10_000.0, activation='silu', qk_norm=True, **SHAPE, **LLM_BLOCKS
    )
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    return config


def _denoiser() -> ConfigDict:
    config = new_config()
    config.task = dict(name='denoise', noise=('permute', 'infill'), rate=0.3)
    blocks = dict(activation='gelu_tanh', relative_buckets=32, scale_attention=False, logits_bias=False)
    config.model = dict(name='bart', layers=3, **SHAPE, **LLM_BLOCKS, **blocks)
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    return config
