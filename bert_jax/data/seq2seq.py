"""Texts and what is to be written of them, as rows of both."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, pack, room
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class PairConfig(DataConfig):
    """A text and its target, such as a summary or a translation; both are cut at their ends if too long.

    Attributes:
      text: the field of the text that is read.
      target: the field of the text that is written.
      target_length: its tokens at most; 0 is `length`.
    """

    text: str = 'text'
    target: str = 'target'
    target_length: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_length:
            within(self, 'data', 4, math.inf, 'target_length')


class Pair(NamedTuple):
    """A text and its target as they are written; without labels the target is empty."""

    text: str
    target: str


def rows(
    found: Sequence[Record], data: PairConfig, tokenizer: Tokenizer, with_targets: bool
) -> tuple[np.ndarray, list[Pair]]:
    """Tokenizes records.

    Returns:
      [n, 2, 4 + T] unsigned integers, the text and its target as rows of their own, and the pairs.

    Raises:
      UserError: for a missing field or text.
    """
    pairs = [Pair(r.text(data.text), r.text(data.target) if with_targets else '') for r in found]
    for record, pair in zip(found, pairs, strict=True):
        if not pair.text.strip() or (with_targets and not pair.target.strip()):
            raise UserError(f'{record.where} has an empty text: mend or remove it.')
    limits = data.length, data.target_length or data.length
    out = np.empty((len(found), 2, HEADER + max(limits)), np.uint32)
    for side, (texts, limit) in enumerate(zip(zip(*pairs, strict=True), limits, strict=True)):
        most = room(limit, tokenizer, 1)
        for row, ids in zip(out, tokenizer.encode(texts), strict=True):
            row[side] = pack(ids[:most], None, 0, max(limits), tokenizer)
    return out, pairs
