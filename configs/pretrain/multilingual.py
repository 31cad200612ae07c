"""Multilingual BERT: one cased vocabulary and one model for several languages.

python -m bert_jax.bin.train --config=configs/pretrain/multilingual.py:gpu --workdir=runs/multilingual \
    --config.data.sources="en=novels_en.txt.gz,de=novels_de.txt.gz,fr=novels_fr.txt.gz,es=novels_es.txt.gz"

`:gpu` reaches a masked-LM loss of 2.55 (one seed) in less than eight minutes on an H200 that trained two other models
at the same time. `:cpu`, the default, takes about an hour on two cores. `:base` has the published size and ten
Wikipedias, and is for accelerators. Languages are sampled in proportion to their size to the power of 0.7
(github.com/google-research/bert, multilingual.md); each contributes the same amount of text to the vocabulary. In place
of the novels, pass your own text files (docs/guides/own_text.md).
"""

from ml_collections import ConfigDict

from configs import check_argument
from configs.pretrain import bert, cpu, gpu

LANGUAGES = ('en', 'de', 'fr', 'es', 'zh', 'ru', 'ar', 'hi', 'sw', 'tr')


def get_config(arg: str = 'cpu') -> ConfigDict:
    """`arg` is cpu, gpu or base (the published size)."""
    check_argument(arg, ('cpu', 'gpu', 'base'))
    base = arg == 'base'
    config = {'cpu': cpu.get_config('192'), 'gpu': gpu.get_config(), 'base': bert.get_config('base')}[arg]
    config.data.sources = tuple(
        f'{name}=wikipedia/20230601.{name}' for name in LANGUAGES[: 10 if base else 4]
    )
    config.data.sampling_exponent = 0.7
    config.tokenizer = dict(lowercase=False, vocab_size=119_547 if base else 16_384)
    return config
