"""Beam search with a model that predicts the next token."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import cpu_decoding, module
from bert_jax.modeling.decoding import DecodingState, Sampling, append, decode, left_pad, prefill, truncate
from bert_jax.modeling.layers import EncoderCache


class BeamState(NamedTuple):
    """State of a beam search in progress, with K beams per row.

    Attributes:
      decoding: decoding state of the B * K live beams.
      tokens: [B, K, length] tokens of the live beams so far.
      log_probs: [B, K] log-probabilities of the live beams.
      finished_tokens: [B, K, length] the best finished hypotheses.
      finished_scores: [B, K] their log-probabilities, normalized by length; -inf where there is none yet.
      num_generated: number of tokens generated so far.
      is_searching: [B] booleans, whether the search of the row continues.
    """

    decoding: DecodingState
    tokens: jax.Array
    log_probs: jax.Array
    finished_tokens: jax.Array
    finished_scores: jax.Array
    num_generated: jax.Array
    is_searching: jax.Array


def search(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    prompts: Sequence[np.ndarray],
    length: int,
    *,
    end: int,
    **options: Any,
) -> list[np.ndarray]:
    """Find the most probable continuation of each prompt by beam search.

    Args:
      graph: structure of a model that has `init_cache` and `extend`.
      params: parameters of the model.
      prompts: token ids of each prompt, at least one.
      length: maximal number of new tokens.
      end: id of the token that ends a row.
      **options: `source`, `num_beams` and `length_penalty`, see `search_rows`.

    Returns:
      The new tokens of the best hypothesis of each prompt, without `end`.

    Raises:
      UserError: as in `decoding.stream`, or if `num_beams` is below 1.
    """
    tokens, valid = left_pad(prompts, end)
    rows = np.asarray(search_rows(graph, params, tokens, valid, length, end=end, **options))
    return [truncate(row, end) for row in rows]


def search_rows(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    tokens: Any,
    valid: Any,
    length: int,
    *,
    end: int,
    source: Sequence[Any] = (),
    num_beams: int = 4,
    length_penalty: float = 1.0,
) -> jax.Array:
    """Find the most probable continuation of each left-padded row by beam search; works under `jax.jit`.

    The score of a finished hypothesis is its log-probability divided by its number of tokens to the power of
    `length_penalty` (Wu et al. 2016, section 7, simplified as in transformers). The search of a row stops when
    the best live beam scores below all `num_beams` finished hypotheses.

    Args:
      graph: structure of a model that has `init_cache` and `extend`.
      params: parameters of the model.
      tokens: [B, T] token ids of the prompts, see `decoding.left_pad`.
      valid: [B, T] booleans, false on padding.
      length: maximal number of new tokens.
      end: id of the token that ends a row.
      source: for an encoder-decoder, the source, as in `decoding.stream`.
      num_beams: number of live beams K per row; 1 decodes greedily.
      length_penalty: exponent; values above 0 favor long texts, values below 0 short ones.

    Returns:
      [B, length] new token ids, `end` after the end of a row.

    Raises:
      UserError: if `num_beams` is below 1.
    """
    if num_beams < 1:
        raise UserError(f'num_beams={num_beams} must be at least 1.')
    slots = tokens.shape[1] + length
    state = prefill(graph, params, tokens, valid, source, jax.random.key(0), slots)
    if num_beams == 1:
        return decode(graph, params, state, Sampling(), end, length)[1]
    return _search(graph, params, state, num_beams, end, length, length_penalty)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5, 6))
def _search(
    graph: module.Graph, params: Any, state: DecodingState, k: int, end: int, length: int, penalty: float
) -> jax.Array:
    """Run the search from the state after the prompts and return the best tokens [B, length]."""
    batch, vocabulary = state.logits.shape

    def step(now: BeamState) -> BeamState:
        log_probs = jax.nn.log_softmax(now.decoding.logits).reshape(batch, k, vocabulary)
        totals = (now.log_probs[..., None] + log_probs).reshape(batch, -1)
        totals, chosen = jax.lax.top_k(totals, 2 * k)  # at least k candidates do not end
        beam, token = chosen // vocabulary, (chosen % vocabulary).astype(jnp.int32)
        tokens = jnp.take_along_axis(now.tokens, beam[..., None], 1)
        tokens = tokens.at[:, :, now.num_generated].set(token)
        num_generated = now.num_generated + 1

        # Candidates that end here compete with the finished hypotheses.
        ends = (token == end) | (num_generated == length)
        scores = totals / num_generated.astype(jnp.float32) ** penalty
        scores = jnp.where(now.is_searching[:, None] & ends & (jnp.arange(2 * k) < k), scores, -jnp.inf)
        finished_scores, kept = jax.lax.top_k(jnp.concatenate([now.finished_scores, scores], 1), k)
        finished_tokens = jnp.concatenate([now.finished_tokens, tokens], 1)
        finished_tokens = jnp.take_along_axis(finished_tokens, kept[..., None], 1)

        # The best k of the others are the live beams.
        totals, kept = jax.lax.top_k(jnp.where(token == end, -jnp.inf, totals), k)
        beam, token = (jnp.take_along_axis(x, kept, 1) for x in (beam, token))
        tokens = jnp.take_along_axis(tokens, kept[..., None], 1)
        rows = (jnp.arange(batch)[:, None] * k + beam).reshape(-1)
        state = now.decoding._replace(
            **{f: _select_rows(getattr(now.decoding, f), rows) for f in _PER_ROW_FIELDS}
        )
        best_live_score = totals.max(1) / num_generated.astype(jnp.float32) ** penalty
        is_searching = now.is_searching & (best_live_score > finished_scores.min(1))
        return BeamState(
            append(graph, params, state, token.reshape(-1)),
            tokens,
            totals,
            finished_tokens,
            finished_scores,
            num_generated,
            is_searching,
        )

    def continues(now: BeamState) -> jax.Array:
        return (now.num_generated < length) & now.is_searching.any()

    with cpu_decoding.packed_matrices():
        final = jax.lax.while_loop(continues, step, _initial_beams(state, k, end, length))
    return final.finished_tokens[:, 0]


def _initial_beams(state: DecodingState, k: int, end: int, length: int) -> BeamState:
    """Start k beams per row; all but the first have probability 0, because they are still copies of it."""
    batch = len(state.logits)
    repeated = {f: jax.tree.map(lambda x: jnp.repeat(x, k, 0), getattr(state, f)) for f in _PER_ROW_FIELDS}
    no_tokens = jnp.full((batch, k, length), end, jnp.int32)
    no_scores = jnp.full((batch, k), -jnp.inf)
    return BeamState(
        decoding=state._replace(**repeated),
        tokens=no_tokens,
        log_probs=jnp.where(jnp.arange(k) == 0, 0.0, no_scores),
        finished_tokens=no_tokens,
        finished_scores=no_scores,
        num_generated=jnp.int32(0),
        is_searching=jnp.ones(batch, bool),
    )


def _select_rows(tree: Any, rows: jax.Array) -> Any:
    """Select `rows` of each array, except in an `EncoderCache`, which is the same for all beams of a text."""
    return jax.tree.map(
        lambda x: x if isinstance(x, EncoderCache) else x[rows],
        tree,
        is_leaf=lambda x: isinstance(x, EncoderCache),
    )


# Fields of a decoding state that have one entry per row.
_PER_ROW_FIELDS = ('logits', 'cache', 'filled', 'positions', 'is_finished')
