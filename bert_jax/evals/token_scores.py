"""Score the tokens of texts with a causal or a masked language model."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import choose_bucket_lengths
from bert_jax.modeling import module
from bert_jax.train.load import TrainedModel

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


class Scored(NamedTuple):
    """What an evaluation scored, and the scores.

    Attributes:
      rows: number of documents or records.
      tokens: number of scored tokens.
      bytes: number of bytes of the scored text.
      scores: scores by name.
    """

    rows: int
    tokens: int
    bytes: int
    scores: dict[str, float]


class CausalScorer:
    """Score given tokens with a causal language model.

    Args:
      trained: model from `load.read_next_token_model`.
      batch_size: rows per batch.
    """

    def __init__(self, trained: TrainedModel, batch_size: int = 16):
        self.trained = trained
        self._batch_size = batch_size

        @jax.jit
        def score(params: module.Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            model = module.merge(trained.graph, params)
            if trained.is_causal:
                hidden = model.gpt(tokens).hidden_states[-1][:, :-1]
                return model.token_loss(hidden, tokens[:, 1:], LOSS_CHUNK)
            hidden = model.bert(tokens, causal=True).hidden_states[-1][:, :-1]
            return model.masked_loss(hidden, tokens[:, 1:])

        self._score = functools.partial(score, trained.params)

    def __call__(self, queries: Sequence[Query]) -> list[TokenScores]:
        """Score queries in batches of similar length; return the scores in the order of the queries.

        Raises:
          UserError: if a loss is not finite.
        """
        if not queries:
            return []
        lengths = np.array([len(q.tokens) for q in queries])
        widths = _choose_widths(lengths, self.trained, 8)
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
                _check_finite(scores[i].losses)
        return scores

    def log_likelihoods(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the log-likelihood of each text, in nats.

        Args:
          texts: N texts as token ids, without special tokens.

        Returns:
          [N] sums over the tokens of a text.
        """
        queries = [Query(begin_document(text, self.trained), 1) for text in texts]
        return np.array([-scores.losses.sum() for scores in self(queries)])


class MaskedScorer:
    """Score given tokens with a masked language model.

    Args:
      trained: model from `load.read_masked`.
      batch_size: rows per batch.
    """

    def __init__(self, trained: TrainedModel, batch_size: int = 16):
        self.trained = trained
        self._batch_size = batch_size

        @jax.jit
        def score(
            params: module.Params,
            tokens: jax.Array,
            lengths: jax.Array,
            positions: jax.Array,
            labels: jax.Array,
        ) -> tuple[jax.Array, jax.Array]:
            model = module.merge(trained.graph, params)
            valid = jnp.arange(tokens.shape[1]) < lengths[:, None]
            encoded = model.bert(tokens, None, valid, None, jnp.maximum(positions - trained.mask_offset, 0))
            return model.masked_loss(encoded.hidden_states[-1][:, 1:], labels)

        self._score = functools.partial(score, trained.params)

    def __call__(
        self, tokens: np.ndarray, lengths: np.ndarray, positions: np.ndarray, labels: np.ndarray
    ) -> TokenScores:
        """Score the tokens at some positions of masked rows.

        Args:
          tokens: [N, T] masked token ids.
          lengths: [N] numbers of tokens that are not padding.
          positions: [N, P] positions of the tokens to score.
          labels: [N, P] these tokens.

        Returns:
          Scores [N, P].

        Raises:
          UserError: if a loss is not finite.
        """
        rows = (tokens, lengths, positions, labels)
        parts = []
        for start in range(0, len(tokens), self._batch_size):
            part = [x[start : start + self._batch_size] for x in rows]
            count = len(part[0])
            padded = [
                np.pad(x, [(0, self._batch_size - count)] + [(0, 0)] * (x.ndim - 1), 'edge') for x in part
            ]
            parts.append([np.asarray(x)[:count] for x in self._score(*padded)])
        losses, is_greedy = map(np.concatenate, zip(*parts, strict=True))
        _check_finite(losses)
        return TokenScores(losses.astype(np.float64), is_greedy)

    def log_likelihoods(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the pseudo-log-likelihood of each text, in nats (Salazar et al. 2020, equation 1).

        Args:
          texts: N texts as token ids, without special tokens.

        Returns:
          [N] sums over the tokens of a text, where each is predicted with only itself masked.
        """
        tokenizer = self.trained.tokenizer
        start, found = len(tokenizer.prefix), np.zeros(len(texts))
        lengths = np.array([start + len(text) + 1 for text in texts])
        widths = _choose_widths(lengths, self.trained, 4)
        for width, shorter in zip(widths, [0, *widths], strict=False):
            members = np.flatnonzero((lengths <= width) & (lengths > shorter))
            tokens = np.zeros((len(members), width), np.int32)
            for row, i in zip(tokens, members, strict=True):
                row[: lengths[i]] = [*tokenizer.prefix, *texts[int(i)], tokenizer.sep]
            columns = np.arange(width)
            rows, positions = np.nonzero((columns >= start) & (columns < lengths[members, None] - 1))
            if len(rows):
                copies, labels = tokens[rows], tokens[rows, positions]
                copies[np.arange(len(rows)), positions] = tokenizer.mask
                scores = self(copies, lengths[members][rows], positions[:, None], labels[:, None])
                found[members] = -np.bincount(rows, scores.losses[:, 0], len(members))
        return found


def begin_document(ids: np.ndarray, trained: TrainedModel) -> np.ndarray:
    """Prepend the token with which documents begin in training, so that the first token of the text has a context."""
    tokenizer = trained.tokenizer
    start = tokenizer.sep if trained.is_causal else tokenizer.cls  # rows of clm separate documents
    return np.concatenate([np.array([start], np.int32), ids])


def _choose_widths(lengths: np.ndarray, trained: TrainedModel, multiple: int) -> np.ndarray:
    """Choose at most 8 row lengths, ascending multiples of a number, to which texts of these lengths are padded."""
    widths = choose_bucket_lengths(lengths, 8, multiple)
    return np.unique(np.minimum(widths, trained.experiment.model.longest_row).astype(int))


def _check_finite(losses: np.ndarray) -> None:
    if not np.isfinite(losses).all():
        raise UserError(
            'The model assigns a token a loss that is not finite, so its scores mean nothing. Set --checkpoint to '
            'one with finite weights.'
        )


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
