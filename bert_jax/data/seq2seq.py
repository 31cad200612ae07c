"""Texts with targets, such as summaries or translations, as one row for the text and one for the target."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.core.config import check_range
from bert_jax.data.labeled import DataConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, max_text_tokens, pack
from bert_jax.data.text_checks import warn_of_unknown
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig(DataConfig):
    """A text and its target, such as a summary or a translation. Both are truncated at their ends if too long.

    Attributes:
      text: field of the input text.
      target: field of the target text.
      target_length: maximum length of the target in tokens; 0 is `length`.
    """

    text: str = 'text'
    target: str = 'target'
    target_length: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_length:
            check_range(self, 'data', 4, math.inf, 'target_length')


class Pair(NamedTuple):
    """A text and its target, untokenized. The target is empty if it is unknown."""

    text: str
    target: str


def make_rows(
    records: Sequence[Record], data: Seq2SeqConfig, tokenizer: Tokenizer, with_targets: bool
) -> tuple[np.ndarray, list[Pair]]:
    """Tokenize texts and targets.

    Args:
      records: n records.
      data: config that names the fields.
      tokenizer: tokenizer of the model.
      with_targets: whether to read the targets; otherwise they are empty.

    Returns:
      [n, 2, 4 + T] unsigned integers, one row for the text and one for the target, and the n untokenized pairs.

    Raises:
      UserError: if a field or a text is missing.
    """
    pairs = [
        Pair(r.text(data.text, 'data.text'), r.text(data.target, 'data.target') if with_targets else '')
        for r in records
    ]
    for record, pair in zip(records, pairs, strict=True):
        if not pair.text.strip() or (with_targets and not pair.target.strip()):
            raise record.error('has an empty text')
    lengths = data.length, data.target_length or data.length
    rows = np.empty((len(records), 2, HEADER + max(lengths)), np.uint32)
    encoded = [tokenizer.encode(texts) for texts in zip(*pairs, strict=True)]
    warn_of_unknown(records, itertools.chain(*encoded), tokenizer)
    for side, (ids_of_texts, length) in enumerate(zip(encoded, lengths, strict=True)):
        capacity = max_text_tokens(length, tokenizer, 1)
        for row, ids in zip(rows, ids_of_texts, strict=True):
            row[side] = pack(ids[:capacity], None, 0, max(lengths), tokenizer)
    return rows, pairs
