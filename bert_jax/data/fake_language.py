"""A fake second language, whose every token is the double of a real one, so that the dictionary is exact.

K et al. 2020 (arXiv 1912.07840, section 4.1.1); the parts that can be switched are those of Dufter & Schütze 2020
(arXiv 2005.00396, section 2).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bert_jax.data.rows import Row
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Disguise:
    """The way from a real language to its double.

    Attributes:
      size: V, entries of the real vocabulary; the double of token i is i + V.
      shared: ids that both languages have.
      inverted: whether the words of a text stand in reverse order.
    """

    size: int
    shared: tuple[int, ...]
    inverted: bool = False

    def ids(self, tokens: np.ndarray) -> np.ndarray:
        """Integers of any shape, in the fake language."""
        return np.where(np.isin(tokens, self.shared), tokens, tokens + self.size)

    def order(self, row: Row) -> np.ndarray:
        """Which position of a row [T] each position of its double comes from."""
        index = np.arange(len(row.tokens))
        if self.inverted:
            for start, stop in ((1, row.first - 1), (row.first, row.length - 1)):
                if start < stop:
                    index[start:stop] = index[start:stop][::-1]
        return index


class DisguisedTokenizer(Tokenizer):
    """A tokenizer that reads texts in the fake language, words in their real order."""

    def __init__(self, tokenizer: Tokenizer, shared_special: bool = True):
        self.__dict__.update(tokenizer.__dict__)
        self._disguise = disguise(tokenizer, shared_special)
        self.unk, self.cls, self.sep = (
            int(self._disguise.ids(np.array(i))) for i in (self.unk, self.cls, self.sep)
        )
        self.between = (self.sep,) * len(self.between)

    def encode(self, texts: Sequence[str], special: bool = False) -> list[np.ndarray]:
        return [self._disguise.ids(ids) for ids in super().encode(texts, special)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self._disguise.ids(ids), places) for ids, places in super().encode_with_offsets(texts)]


def disguise(tokenizer: Tokenizer, shared_special: bool = True, inverted: bool = False) -> Disguise:
    """The double of a tokenizer's language; padding is always shared, the other special tokens if so wished."""
    t = tokenizer
    special = [t.pad, t.unk, t.cls, t.sep, t.mask] if shared_special else [t.pad]
    return Disguise(len(t), tuple(sorted({i for i in special if i is not None})), inverted)
