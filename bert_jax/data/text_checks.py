"""Checks of labeled texts: empty texts, and texts that the vocabulary does not cover."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.records import Record
from bert_jax.data.tokenizer import Tokenizer

_LARGE_SHARE = 0.1


def find_empty(records: Sequence[Record], data: Any) -> list[Record]:
    """Return the records with an empty text, question or context, or without words.

    Args:
      records: records of labeled data.
      data: `data` section of a downstream task, which names the fields.
    """
    keys = ('text', 'text_pair', 'tokens', 'question', 'context')
    names = [name for key in keys if (name := getattr(data, key, ''))]
    return [record for record in records if any(_is_empty(record.get(name)) for name in names)]


def _is_empty(value: Any) -> bool:
    return len(value.strip() if isinstance(value, str) else value) == 0


def check_not_empty(records: Sequence[Record], data: Any) -> None:
    """Warn of empty texts; the arguments are those of `find_empty`.

    Raises:
      UserError: if all records have an empty text.
    """
    empty = find_empty(records, data)
    if not empty:
        return
    location = empty[0].location.rstrip(',')
    if len(empty) == len(records):
        raise UserError(
            f'All {len(records):,} examples have an empty text, from {location} on. '
            'Correct the data, or name another field of texts in the data section.'
        )
    logging.warning(
        '%d of %d examples have an empty text; the first is %s', len(empty), len(records), location
    )


def warn_of_unknown(records: Sequence[Record], encoded: Iterable[np.ndarray], tokenizer: Tokenizer) -> None:
    """Warn if 10 % or more of the tokens are unknown to the tokenizer.

    Args:
      records: the records.
      encoded: token ids of their texts.
      tokenizer: tokenizer that encoded them.
    """
    # After a bad record, `predict` retries the others in pairs with the first; those would repeat the log.
    if len(records) <= 2:
        return
    ids = np.concatenate([*encoded])
    if len(ids) and (share := np.mean(ids == tokenizer.unk)) >= _LARGE_SHARE:
        logging.warning(
            '%.0f %% of the tokens of %d examples are %s, because the vocabulary does not have them. '
            'Use a checkpoint whose vocabulary fits the language of the texts.',
            100 * share,
            len(records),
            tokenizer.special_tokens[1],
        )
