"""Noise: pure functions of a row and a random generator."""

import dataclasses

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.rows import Row
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class MaskRates:
    """How much is masked and with what (Devlin et al. 2019, section 3.1, task 1).

    Attributes:
      rate: share of the tokens to predict.
      mask: of these, the share replaced by [MASK].
      random: of these, the share replaced by a random ordinary token; the rest is kept.
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.rate <= 1 and self.mask >= 0 and self.random >= 0 and self.mask + self.random <= 1):
            raise UserError(f'Masking rates are shares of 1, and mask + random is at most 1; got {self}.')


def mask_tokens(
    row: Row,
    rates: MaskRates,
    most: int,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    whole_words: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses tokens of a row and breaks them.

    Args:
      row: its [CLS], [SEP] and padding are never chosen.
      rates: shares.
      most: at most this many tokens are chosen.
      tokenizer: names the special tokens, the ordinary ones, and word boundaries.
      rng: all randomness.
      whole_words: choose all pieces of a word or none (the whole-word models of the BERT authors,
        2019).

    Returns:
      The broken tokens [T], and the chosen positions [n], ascending; n is `rates.rate` of the
      ordinary tokens rounded, at least 1 (whole words: up to that many) and at most `most`.
    """
    tokens = row.tokens.copy()
    real = tokens[: row.length]
    candidates = np.flatnonzero((real != tokenizer.cls) & (real != tokenizer.sep))
    want = min(most, max(1, round(rates.rate * len(candidates))), len(candidates))
    if whole_words:
        starts = ~tokenizer.continues[tokens[candidates]]
        starts[:1] = True
        starts[1:] |= np.diff(candidates) > 1
        word = np.cumsum(starts) - 1
        order = rng.permutation(int(word[-1]) + 1 if len(word) else 0)
        sizes = np.bincount(word)[order] if len(word) else np.zeros(0, int)
        chosen = np.isin(word, order[_fitting(sizes, want)])
        positions = candidates[chosen]
    else:
        positions = np.sort(rng.choice(candidates, want, replace=False))
    fate = rng.random(len(positions))
    tokens[positions[fate < rates.mask]] = tokenizer.mask
    changed = positions[(fate >= rates.mask) & (fate < rates.mask + rates.random)]
    tokens[changed] = rng.choice(tokenizer.ordinary, len(changed))
    return tokens, positions


def _fitting(sizes: np.ndarray, room: int) -> np.ndarray:
    """Which items, taken in order and skipping those that no longer fit, fill `room`."""
    taken = np.zeros(len(sizes), bool)
    for i in np.flatnonzero(sizes <= room):
        if sizes[i] <= room:
            taken[i] = True
            room -= sizes[i]
            if room == 0:
                break
    return taken
