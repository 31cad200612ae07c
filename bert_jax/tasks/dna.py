"""One class for a sequence of DNA, or of other symbols, by a model pretrained on language (Kao & Lee 2021, arXiv 2103.07162)."""

import dataclasses
import math

from bert_jax.core.config import within
from bert_jax.data.labelled import LabelledConfig
from bert_jax.data.symbols import SymbolTokenizer
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.tasks import classify


@dataclasses.dataclass(frozen=True)
class Config(classify.Config):
    """Classes, and how a sequence is written in words.

    Attributes:
      alphabet: the symbols.
      kmer: so many neighbours are one token.
      stride: by how many symbols each token begins after the one before.
      table: the seed by which symbols become word pieces.
    """

    name: str = 'dna'
    alphabet: str = 'ACGT'
    kmer: int = 1
    stride: int = 1
    table: int = 0

    def __post_init__(self) -> None:
        within(self, 'task', 1, 16, 'kmer', 'stride')
        within(self, 'task', 0, math.inf, 'table')


class Task(classify.Task):
    def __init__(self, config: Config, data: LabelledConfig, tokenizer: Tokenizer):
        words = SymbolTokenizer(tokenizer, config.alphabet, config.kmer, config.table, config.stride)
        super().__init__(config, data, words)
