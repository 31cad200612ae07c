"""Reference models for two CPU cores or one GPU: an encoder, a multilingual encoder, a decoder and a denoiser.

python -m bert_jax.bin.train --config=configs/pretrain/reference.py:encoder,cpu --workdir=runs/encoder \
    --config.data.sources=encyclopedia_en.txt.gz,dialogue_en.txt.gz,novels_en.txt.gz
python -m bert_jax.bin.plan --config=configs/pretrain/reference.py:encoder,gpu --topology=h100:1 \
    --config.data.sources=encyclopedia_en.txt.gz,dialogue_en.txt.gz,novels_en.txt.gz

Those for the CPU read 37 million tokens, those for the GPU 557 million, and all export to Hugging Face: the encoders as
ModernBERT, the decoder as Qwen3, the denoiser as T5. Only encoder,cpu has been trained, in 64 minutes on two busy cores:
masked-LM loss 3.02 (one seed), BLiMP and more in docs/results/emergence.md. encoder,gpu has 11 million parameters. For a
multilingual encoder, name the languages:
--config.data.sources=en=encyclopedia_en.txt.gz,zh=encyclopedia_zh.txt.gz,de=novels_de.txt.gz
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.pretrain import cpu

MODELS = ('encoder', 'multilingual', 'decoder', 'denoiser')
LAYERS = {'cpu': 6, 'gpu': 12}  # of an encoder, every third is global
SHAPES: dict[str, dict] = {
    'cpu': dict(width=192, heads=3, mlp_width=512),
    'gpu': dict(width=256, heads=4, mlp_width=640, dtype='bfloat16', scan_layers=True),
}
# Steps, length and rows of the phases. The batch size grows. The last rows are longer, while the learning rate decays.
PHASES = {
    'cpu': ((4_000, 128, 16), (5_500, 128, 32), (1_500, 512, 8)),
    'gpu': ((1_000, 128, 256), (6_500, 128, 512), (1_000, 512, 128)),
}
LLM_BLOCKS = dict(norm_placement='pre', norm_kind='rms', use_bias=False, gated_mlp=True)
LANGUAGES = ('en', 'zh', 'de', 'fr', 'es')


def get_config(arg: str = 'encoder,cpu') -> ConfigDict:
    """`arg` is encoder, multilingual, decoder or denoiser, a comma, and cpu or gpu."""
    check_argument(arg, tuple(f'{model},{machine}' for model in MODELS for machine in PHASES))
    name, machine = arg.split(',')
    makers = dict(encoder=_encoder, multilingual=_multilingual, decoder=_decoder, denoiser=_denoiser)
    config = makers[name](LAYERS[machine])
    config.model.update(dropout=0.0, attention_dropout=0.0, **SHAPES[machine])
    masking = ('task.mask_rate=0.3',) if config.task.name == 'mlm' else ()
    base = ('model.rope_base=40_000.0',) if config.model.get('rope_base') else ()
    *short, (steps, length, rows) = PHASES[machine]
    if name == 'denoiser':  # the decoder reads the row as well
        length, rows = length // 2, rows * 2
    config.train = dict(
        phases=(*((*phase, *masking) for phase in short), (steps, length, rows, *base)),
        log_every=100,
        eval_every=2_000,
        eval_rows=1_024,
    )
    schedule = dict(schedule='wsd', warmup=500, decay=0.2, decay_shape='1-sqrt')
    config.optim = dict(learning_rate=2e-3, b2=0.98, **schedule)
    config.checkpoint = dict(every=250, keep=200)
    if machine == 'gpu':
        config.train.update(workers=12, eval_batch_size=256)
        config.checkpoint = dict(every=1_000)
    return config


def _encoder(layers: int) -> ConfigDict:
    config = cpu.get_config('modern')
    config.model.layers = layers
    return config


def _multilingual(layers: int) -> ConfigDict:
    config = _encoder(layers)
    config.data.sources = tuple(f'{name}=wikipedia/20230601.{name}' for name in LANGUAGES)
    config.data.sampling_exponent = 0.7
    config.tokenizer = dict(lowercase=False, vocab_size=16_384)
    return config


def _decoder(layers: int) -> ConfigDict:
    config = new_config()
    config.task = dict(name='clm')
    config.model = dict(
        name='gpt', layers=layers, rope_base=10_000.0, activation='silu', qk_norm=True, **LLM_BLOCKS
    )
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    return config


def _denoiser(layers: int) -> ConfigDict:
    config = new_config()
    config.task = dict(name='denoise', noise=('permute', 'infill'), rate=0.3)
    blocks = dict(activation='gelu_tanh', relative_buckets=32, scale_attention=False, logits_bias=False)
    config.model = dict(name='bart', layers=layers // 2, **LLM_BLOCKS, **blocks)
    config.data = dict(sources=('pydocs/text',))
    config.tokenizer = dict(kind='bpe', vocab_size=8192)
    return config
