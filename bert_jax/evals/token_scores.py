"""Score the tokens of texts with a causal language model."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import choose_bucket_lengths
from bert_jax.modeling import module
from bert_jax.train import load

LOSS_CHUNK = 128  # number of positions per row whose vocabulary logits are computed at once


class Query(NamedTuple):
    """Tokens to score, with their context.

    Attributes:
      tokens: [n] token ids, context first.
      first: index of the first scored token, at least 1; all tokens after it are scored too.
    """

    tokens: np.ndarray
    first: int


class TokenScores(NamedTuple):
    """Scores of the tokens of a `Query` from `first` on.

    Attributes:
      losses: negative log-likelihood of each token, in nats.
      is_greedy: whether each token is the most likely one in its context.
    """

    losses: np.ndarray
    is_greedy: np.ndarray


class TokenScorer:
    """Score given tokens with a causal language model.

    Args:
      checkpoint: working directory of a run of the task clm, or the folder of one of its checkpoints.
      batch_size: rows per batch.

    Raises:
      UserError: if there is no checkpoint, or its model is not a causal language model.
    """

    def __init__(self, checkpoint: Any, batch_size: int = 16):
        self.trained = trained = load.read_causal(checkpoint)
        self._batch_size = batch_size

        @jax.jit
        def score(params: module.Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            model = module.merge(trained.graph, params)
            hidden = model.gpt(tokens).hidden_states[-1][:, :-1]
            return model.token_loss(hidden, tokens[:, 1:], LOSS_CHUNK)

        self._score = functools.partial(score, trained.params)

    def __call__(self, queries: Sequence[Query]) -> list[TokenScores]:
        """Score queries in batches of similar length; return the scores in the order of the queries.

        Raises:
          UserError: if a loss is not finite.
        """
        if not queries:
            return []
        lengths = np.array([len(q.tokens) for q in queries])
        widths = choose_bucket_lengths(lengths, 8, 8)
        widths = np.minimum(widths, self.trained.experiment.model.longest_row).astype(int)
        scores: list[Any] = [None] * len(queries)
        order = np.argsort(lengths, kind='stable')
        for start in range(0, len(order), self._batch_size):
            indices = order[start : start + self._batch_size]
            width = widths[np.searchsorted(widths, lengths[indices[-1]])]
            rows = np.zeros((self._batch_size, width), np.int32)
            for row, i in zip(rows, indices, strict=False):
                row[: lengths[i]] = queries[i].tokens
            losses, is_greedy = map(np.asarray, self._score(rows))
            for j, i in enumerate(indices):
                scored = slice(queries[i].first - 1, lengths[i] - 1)
                scores[i] = TokenScores(losses[j, scored].astype(np.float64), is_greedy[j, scored])
                if not np.isfinite(scores[i].losses).all():
                    raise UserError(
                        'The model assigns a token a loss that is not finite, so its scores mean nothing. Set --checkpoint to '
                        'one with finite weights.'
                    )
        return scores


def windows(size: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Split `size` tokens into overlapping windows, so that each token but the first is predicted once.

    Args:
      size: number of tokens.
      length: maximum number of tokens in a window.
      stride: number of new tokens in each window after the first.

    Yields:
      Start and stop of a window, and the index of the first token to predict in it. In each window after the first, at
      least `length - stride` tokens precede that token.
    """
    stop = min(length, size)
    yield 0, stop, 1
    while stop < size:
        new_stop = min(stop + stride, size)
        yield new_stop - length, new_stop, stop
        stop = new_stop
