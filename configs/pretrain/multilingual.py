"""Multilingual BERT: one vocabulary, cased, and one model for many languages, none of which is told which it reads.

python -m bert_jax.bin.train --config=configs/pretrain/multilingual.py --workdir=runs/multilingual \
    --config.data.sources="en=novels_en.txt.gz,de=novels_de.txt.gz,fr=novels_fr.txt.gz,es=novels_es.txt.gz"

`:cpu` learns on two cores, `:gpu` on one GPU within minutes; `:base` is the published size on ten Wikipedias. A language is drawn from in proportion to its
size to the power of 0.7 (github.com/google-research/bert, multilingual.md); the vocabulary has an equal share of each.
"""

from ml_collections import ConfigDict

from configs.pretrain import bert, cpu, gpu

LANGUAGES = ('en', 'de', 'fr', 'es', 'zh', 'ru', 'ar', 'hi', 'sw', 'tr')


def get_config(arg: str = 'cpu') -> ConfigDict:
    """`arg` is cpu, gpu or base."""
    base = arg == 'base'
    config = {'cpu': cpu.get_config('192'), 'gpu': gpu.get_config(), 'base': bert.get_config('base')}[arg]
    config.data.sources = tuple(
        f'{name}=wikipedia/20230601.{name}' for name in LANGUAGES[: 10 if base else 4]
    )
    config.data.exponent = 0.7
    config.tokenizer = dict(lowercase=False, vocab_size=119_547 if base else 16_384)
    return config
