"""Batches of plain texts, for models that are called from Python."""

from collections.abc import Iterable, Sequence

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.rows import make_row, pack, truncate_pair, unpack
from bert_jax.data.tokenizer import Tokenizer

# Shorter rows save little time, and each length costs the compilation of a program.
_MIN_LENGTH = 64


def make(
    tokenizer: Tokenizer,
    texts: str | Iterable[str],
    pairs: str | Iterable[str] | None,
    max_length: int | None,
) -> dict[str, np.ndarray]:
    """Make the inputs of a model from texts; arguments and result as in `Tokenizer.__call__`."""
    columns = [_encode(tokenizer, texts, 'texts')]
    if pairs is not None:
        columns.append(_encode(tokenizer, pairs, 'pairs'))
        if len(columns[1]) != len(columns[0]):
            raise UserError(
                f'texts has the length {len(columns[0])}, but pairs has {len(columns[1])}. Pass one second text for each text.'
            )
    num_special = 0
    if tokenizer.adds_special_tokens:
        num_special = len(tokenizer.prefix) + 1 + (0 if pairs is None else len(tokenizer.separators))
    examples = [*zip(*columns, strict=True)]
    if max_length is not None:
        if max_length < num_special + len(columns):
            raise UserError(
                f'max_length={max_length} leaves no room for text next to {num_special} special tokens. '
                f'Pass {num_special + len(columns)} or more.'
            )
        examples = [_truncate(example, max_length - num_special) for example in examples]
    length = _padded_length([num_special + sum(map(len, example)) for example in examples], tokenizer)
    rows = [unpack(_pack(example, length, tokenizer)).inputs() for example in examples]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _encode(tokenizer: Tokenizer, texts: str | Iterable[str], name: str) -> list[np.ndarray]:
    """Encode one text or several; `name` is the name of the argument in messages."""
    hint = 'Pass a string or a list of strings.'
    if not isinstance(texts, Iterable):
        raise UserError(f'{name} is {texts!r}. {hint}')
    texts = [texts] if isinstance(texts, str) else [*texts]
    if not texts:
        raise UserError(f'{name} is empty. {hint}')
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            if isinstance(text, tuple | list) and name == 'texts':
                hint = 'Pass a list of strings, and the second texts as another: tokenizer(texts, pairs).'
            raise UserError(f'{name}[{i}] is of type {type(text).__name__}. {hint}')
    return tokenizer.encode(texts, parse_special=True)


def _truncate(example: Sequence[np.ndarray], capacity: int) -> tuple[np.ndarray, ...]:
    """Cut one text or two to `capacity` tokens together."""
    first, *second = example
    return truncate_pair(first, second[0], capacity) if second else (first[:capacity],)


def _padded_length(lengths: Sequence[int], tokenizer: Tokenizer) -> int:
    """Round the length of the longest row up to a power of two, within the longest row of the model."""
    longest, limit = max(lengths), tokenizer.longest_row
    if longest > limit:
        raise UserError(
            f'texts[{lengths.index(longest)}] has {longest} tokens, but the model reads at most {limit}. '
            f'Pass max_length={limit} to cut longer texts.'
        )
    return int(min(max(_MIN_LENGTH, 1 << (longest - 1).bit_length()), limit))


def _pack(example: Sequence[np.ndarray], length: int, tokenizer: Tokenizer) -> np.ndarray:
    """Pack one text or two into a row."""
    first, *second = example
    if tokenizer.adds_special_tokens:
        return pack(first, second[0] if second else None, 0, length, tokenizer)
    return make_row(np.concatenate(example), len(first), 0, length, tokenizer)
