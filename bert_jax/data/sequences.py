"""Non-language sequences such as DNA for a pretrained language model: each k-mer is assigned a random word piece."""

import itertools
from collections.abc import Sequence

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer


class KmerTokenizer(Tokenizer):
    """A tokenizer of symbol sequences (Kao & Lee 2021, arXiv 2103.07162, section 3).

    Attributes:
      kmer: number of neighboring symbols in a token.
      stride: number of symbols between the starts of neighboring tokens.
      table: token id of each k-mer.
    """

    def __init__(self, tokenizer: Tokenizer, alphabet: str, kmer: int, seed: int, stride: int = 1):
        """Assign a different ordinary word piece to each k-mer.

        Args:
          tokenizer: tokenizer of the pretrained model; its special tokens are kept.
          alphabet: the symbols; case is ignored, also in the texts.
          kmer: see the class.
          seed: seed of the assignment.
          stride: see the class; 1 starts a token at every symbol, `kmer` makes tokens that do not overlap.

        Raises:
          UserError: if there are more k-mers than word pieces.
        """
        self.__dict__.update(tokenizer.__dict__)
        self.kmer, self.stride = kmer, stride
        symbols = sorted({*alphabet.upper()})
        pieces = [i for i in tokenizer.ordinary_ids if not tokenizer.token(i).startswith('[unused')]
        if not 0 < (size := len(symbols) ** kmer) <= len(pieces):
            raise UserError(
                f'task.alphabet={alphabet!r} and task.kmer={kmer} give {size:,} k-mers, but must give '
                f'1 to {len(pieces):,}, the number of word pieces. Lower task.kmer or correct task.alphabet.'
            )
        names = [''.join(parts) for parts in itertools.product(symbols, repeat=kmer)]
        chosen = np.random.default_rng(seed).choice(pieces, len(names), replace=False)
        self.table = {name: int(i) for name, i in zip(names, chosen, strict=True)}

    def encode(self, texts: Sequence[str], parse_special: bool = False) -> list[np.ndarray]:
        """Encode the k-mers of each text; k-mers with symbols outside the alphabet become [UNK]."""
        return [np.array([*self._ids(text.strip().upper())], np.int32) for text in texts]

    def count(self, text: str) -> int:
        """Return the number of k-mers of a text; 0 if the text is shorter than a k-mer."""
        return len(self._starts(text.strip()))

    def _starts(self, text: str) -> range:
        return range(0, len(text) - self.kmer + 1, self.stride)

    def _ids(self, text: str) -> list[int]:
        return [self.table.get(text[i : i + self.kmer], self.unk) for i in self._starts(text)]
