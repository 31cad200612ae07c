"""A fake language: a copy of a real language with other token ids, so that the dictionary between them is exact.

Introduced by K et al. 2020 (arXiv 1912.07840, section 4.1.1). Sharing special tokens and inverting the word order
follow Dufter & Schütze 2020 (arXiv 2005.00396, section 2).
"""

from collections.abc import Sequence

import numpy as np

from bert_jax.data.rows import Row
from bert_jax.data.tokenizer import Tokenizer


class FakeLanguage:
    """A mapping from the token ids of a tokenizer's language to those of its fake copy: token i becomes i + V.

    Args:
      tokenizer: tokenizer of the real language, with V entries.
      shared_special: whether the languages share all special tokens; otherwise they only share padding.
      inverted: whether the fake language has the reverse word order.
    """

    def __init__(self, tokenizer: Tokenizer, shared_special: bool = True, inverted: bool = False):
        t = tokenizer
        special = [t.pad, t.unk, t.cls, t.sep, t.mask] if shared_special else [t.pad]
        self._shared_ids = [i for i in special if i is not None]
        self._vocab_size, self._inverted = len(t), inverted
        self._first, self._num_separators = len(t.prefix), len(t.separators)

    def map_ids(self, tokens: np.ndarray) -> np.ndarray:
        """Map real token ids, an array of any shape, to fake ones."""
        return np.where(np.isin(tokens, self._shared_ids), tokens, tokens + self._vocab_size)

    def source_positions(self, row: Row) -> np.ndarray:
        """Return for each position of the fake row the position of its token in the real `row`: [T]."""
        index = np.arange(len(row.tokens))
        if self._inverted:
            second = row.first_length - 1 + self._num_separators
            for start, stop in ((self._first, row.first_length - 1), (second, row.length - 1)):
                index[start:stop] = index[start:stop][::-1]
        return index


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of a token of a `tasks.bilingual` model: that of its real token, after ~ if the token is fake."""
    size = len(tokenizer)
    return tokenizer.token(token) if token < size else f'~{tokenizer.token(token - size)}'


class FakeLanguageTokenizer(Tokenizer):
    """A tokenizer that encodes texts with the ids of the fake language, in the original word order."""

    def __init__(self, tokenizer: Tokenizer, shared_special: bool = True):
        self.__dict__.update(tokenizer.__dict__)
        self._language = FakeLanguage(tokenizer, shared_special)
        real = np.array([self.unk, self.cls, self.sep])
        self.unk, self.cls, self.sep = self._language.map_ids(real).tolist()
        self.prefix = (self.cls,) * len(self.prefix)
        self.separators = (self.sep,) * len(self.separators)

    def encode(self, texts: Sequence[str], parse_special: bool = False) -> list[np.ndarray]:
        return [self._language.map_ids(ids) for ids in super().encode(texts, parse_special)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self._language.map_ids(ids), offsets) for ids, offsets in super().encode_with_offsets(texts)]
