"""Sequences of another discipline, such as DNA, in the words of a model of language: each symbol is a word piece drawn at random."""

import itertools
from collections.abc import Sequence

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer


class SymbolTokenizer(Tokenizer):
    """A tokenizer whose texts are sequences of symbols (Kao & Lee 2021, arXiv 2103.07162, section 3).

    Args:
      tokenizer: of the pretrained model; its special tokens stay.
      alphabet: the symbols, in any case, as are the texts.
      kmer: so many neighbouring symbols are one token.
      stride: by how many symbols a token begins after the one before: 1 is at each, `kmer` side by side.
      seed: of the table; each k-mer has an ordinary word piece of its own.

    Raises:
      UserError: if there are more k-mers than word pieces.
    """

    def __init__(self, tokenizer: Tokenizer, alphabet: str, kmer: int, seed: int, stride: int = 1):
        self.__dict__.update(tokenizer.__dict__)
        self.kmer, self.stride = kmer, stride
        symbols = sorted({*alphabet.upper()})
        used = [i for i in tokenizer.ordinary if not tokenizer.token(i).startswith('[unused')]
        if not 0 < (size := len(symbols) ** kmer) <= len(used):
            raise UserError(
                f'{size:,} k-mers of {alphabet!r} need as many different word pieces, of which there are {len(used):,}: '
                'lower task.kmer, or mend task.alphabet.'
            )
        names = [''.join(parts) for parts in itertools.product(symbols, repeat=kmer)]
        drawn = np.random.default_rng(seed).choice(used, len(names), replace=False)
        self.table = {name: int(i) for name, i in zip(names, drawn, strict=True)}

    def encode(self, texts: Sequence[str], special: bool = False) -> list[np.ndarray]:
        """Ids of the k-mers of each text, of one that is not in the table [UNK]."""
        return [np.array([*self._ids(text.strip().upper())], np.int32) for text in texts]

    def count(self, text: str) -> int:
        """How many k-mers a text has; 0 if it is shorter than one."""
        return len(self._places(text.strip()))

    def _places(self, text: str) -> range:
        return range(0, len(text) - self.kmer + 1, self.stride)

    def _ids(self, text: str) -> list[int]:
        return [self.table.get(text[i : i + self.kmer], self.unk) for i in self._places(text)]
