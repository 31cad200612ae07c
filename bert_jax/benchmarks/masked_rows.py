"""Random rows for masked language modeling: full, packed and padded, with the work that a train step on them needs."""

import math
from typing import Any, NamedTuple

import numpy as np

VOCAB, MASK_RATE, PADDING = 30_522, 0.15, 0.3
KINDS = ('full', 'packed', 'padded')


class Work(NamedTuple):
    """Work of one train step.

    Attributes:
      tokens: number of real tokens.
      flops: floating-point operations of the matrix products of forward and backward pass on real tokens.
    """

    tokens: float
    flops: float


def make_batch(kind: str, rows: int, length: int) -> dict[str, np.ndarray]:
    """Make a batch of the task `mlm`.

    Args:
      kind: kind of rows: 'full' has one text in each row and no padding; 'packed' has several texts in each row, of T/8
        to T/2 tokens, and no padding; 'padded' has one text in each row, and 30 % of the tokens are padding.
      rows: number of rows, B.
      length: number of tokens in a row, T.

    Returns:
      The arrays that `mlm.Task.loss` reads. 15 % of the tokens of each row are predicted.
    """
    rng = np.random.default_rng(0)
    documents = _document_numbers(kind, rows, length, rng)
    is_real = documents > 0
    tokens = np.where(is_real, rng.integers(1000, VOCAB, (rows, length)), 0).astype(np.int32)
    slots = math.ceil(MASK_RATE * length)
    # Real tokens in random order, then padding.
    order = np.where(is_real, rng.random((rows, length)), 2).argsort(1)[:, :slots]
    is_predicted = np.arange(slots) < np.ceil(MASK_RATE * is_real.sum(1, keepdims=True))
    positions = np.sort(np.where(is_predicted, order, length), axis=1)  # the unused slots come last
    positions = np.where(is_predicted, positions, 0).astype(np.int32)
    return {
        'tokens': tokens,
        'segments': np.zeros((rows, length), np.int32),
        'valid': documents if kind == 'packed' else is_real,
        'positions': positions,
        'labels': np.take_along_axis(tokens, positions, 1),
        'weights': is_predicted.astype(np.float32),
        'row_weight': np.ones(rows, np.float32),
    }


def _document_numbers(kind: str, rows: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return the document of each token [B, T], counted from 1, and 0 on padding."""
    index = np.arange(length)
    if kind == 'full':
        return np.ones((rows, length), np.int32)
    if kind == 'padded':
        # Lengths are spread evenly around the mean.
        shares = 1 - PADDING + np.linspace(-PADDING, PADDING, rows) * (rows > 1)
        lengths = rng.permutation(np.round(length * shares))
        return (index < lengths[:, None]).astype(np.int32)
    shortest = max(1, length // 8)
    texts = rng.integers(shortest, max(2, length // 2) + 1, (rows, -(-length // shortest)))
    starts = np.cumsum(texts, axis=1)[..., None]
    return (1 + (index >= starts).sum(1)).astype(np.int32)


def make_task(kind: str) -> Any:
    """Create the task `mlm` without next-sentence prediction."""
    from bert_jax.data import tokenizer
    from bert_jax.data.prepare import TextConfig
    from bert_jax.tasks import mlm

    config = mlm.Config(sentence_objective='none', pack_documents=kind == 'packed')
    return mlm.Task(config, TextConfig(), tokenizer.from_vocab(tokenizer.SPECIAL))


def count_work(task: Any, model_config: Any, batch: dict[str, np.ndarray]) -> Work:
    """Count the work of a train step, three times that of its forward pass (see `train.flops`).

    Attention to padding does not count.
    """
    documents = batch['valid'].astype(np.int32)
    return Work(task.count_tokens(batch), 3 * task.flops(model_config, {**batch, 'valid': documents}))
