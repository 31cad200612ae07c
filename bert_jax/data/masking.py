"""Masking for masked language models: pure functions of a row and a random generator."""

import dataclasses

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.rows import Row
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class MaskRates:
    """How many tokens to predict, and what replaces them (Devlin et al. 2019, section 3.1, task 1).

    Attributes:
      rate: fraction of the tokens to predict.
      mask_fraction: fraction of the predicted tokens that are replaced by [MASK].
      random_fraction: fraction of the predicted tokens that are replaced by a random ordinary token. The rest is
        kept.
    """

    rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1

    def __post_init__(self) -> None:
        mask, random = self.mask_fraction, self.random_fraction
        if not (0 < self.rate <= 1 and mask >= 0 and random >= 0 and mask + random <= 1):
            raise UserError(
                f'Invalid task.mask_rate={self.rate}, task.mask_fraction={mask} or task.random_fraction={random}. '
                'All must be from 0 to 1, task.mask_rate must not be 0, and the fractions must add up to at most 1.'
            )


def mask_tokens(
    row: Row,
    rates: MaskRates,
    max_predictions: int,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    continues_word: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens of a row to predict and mask them.

    Args:
      row: the row; its [CLS], [SEP] and padding are never chosen.
      rates: how many tokens to choose and what replaces them.
      max_predictions: largest number of tokens to choose.
      tokenizer: defines special tokens and ordinary tokens.
      rng: random generator for all random choices.
      continues_word: [T] booleans: whether each token continues the word of the token before it. All tokens of a word
        are then chosen, or none (the whole-word models of the BERT authors, 2019; for Chinese Cui et al. 2021, section
        3.1). None chooses each token independently.

    Returns:
      The masked tokens [T], and the chosen positions [n], ascending. n is `rates.rate` times the number of
      ordinary tokens, rounded, at least 1 and at most `max_predictions`; with whole words it may be smaller.
    """
    tokens = row.tokens.copy()
    real = tokens[: row.length]
    candidates = np.flatnonzero((real != tokenizer.cls) & (real != tokenizer.sep))
    count = min(max_predictions, max(1, round(rates.rate * len(candidates))), len(candidates))
    if continues_word is not None:
        starts = ~continues_word[candidates]
        starts |= np.diff(candidates, prepend=-2) > 1  # after a special token, and at the first candidate
        word = np.cumsum(starts) - 1
        sizes = np.bincount(word)
        order = rng.permutation(len(sizes))
        is_chosen = np.isin(word, order[_select_fitting(sizes[order], count)])
        positions = candidates[is_chosen]
    else:
        positions = np.sort(rng.choice(candidates, count, replace=False))
    draw = rng.random(len(positions))
    tokens[positions[draw < rates.mask_fraction]] = tokenizer.mask
    is_random = (draw >= rates.mask_fraction) & (draw < rates.mask_fraction + rates.random_fraction)
    randomized = positions[is_random]
    tokens[randomized] = rng.choice(tokenizer.ordinary_ids, len(randomized))
    return tokens, positions


def diffuse_tokens(
    row: Row, rate: float, tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mask each token of a row with probability `rate`: the noise of masked diffusion (Sahoo et al. 2024, section 3.1).

    Args:
      row: the row; its [CLS], [SEP] and padding are never masked.
      rate: probability of each token, in (0, 1].
      tokenizer: defines the special tokens.
      rng: random generator of the choices.

    Returns:
      The masked tokens [T], and the masked positions [n], ascending; n may be 0.
    """
    tokens = row.tokens.copy()
    real = tokens[: row.length]
    candidates = np.flatnonzero((real != tokenizer.cls) & (real != tokenizer.sep))
    positions = candidates[rng.random(len(candidates)) < rate]
    tokens[positions] = tokenizer.mask
    return tokens, positions


def _select_fitting(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Select items greedily in order, skipping those that no longer fit into `capacity`: booleans [n]."""
    is_selected = np.zeros(len(sizes), bool)
    for i in np.flatnonzero(sizes <= capacity):
        if sizes[i] <= capacity:
            is_selected[i] = True
            capacity -= sizes[i]
            if capacity == 0:
                break
    return is_selected
