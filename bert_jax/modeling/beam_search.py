"""The likeliest text that a beam search finds, by a model that predicts the next token."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import cpu_decoding, module
from bert_jax.modeling.decoding import Sampling, State, begin, checked, go_on, read, until
from bert_jax.modeling.layers import Read


class Beams(NamedTuple):
    """A beam search on its way; K beams a row.

    Attributes:
      state: of the B * K rows that go on.
      tokens: [B, K, length], what they have made so far.
      totals: [B, K], their log-probabilities.
      ended: [B, K, length], the best that have ended.
      best: [B, K], the log-probabilities of these, normalised by length; -inf is none.
      made: how many tokens were made.
      open: [B], whether the search of the row goes on.
    """

    state: State
    tokens: jax.Array
    totals: jax.Array
    ended: jax.Array
    best: jax.Array
    made: jax.Array
    open: jax.Array


def search(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    prompts: Sequence[np.ndarray],
    length: int,
    *,
    end: int,
    source: Sequence[np.ndarray] = (),
    beams: int = 4,
    length_penalty: float = 1.0,
) -> list[np.ndarray]:
    """The likeliest texts that a beam search finds.

    A text that has ended counts with its log-probability over its number of tokens to the power of
    `length_penalty` (Wu et al. 2016, section 7, in the simpler form that transformers has); the search of a row
    stops when the best beam, as long as it is, is behind all of its `beams` ended texts.

    Args:
      graph, params, prompts, length, end, source: as of `stream`.
      beams: K, how many texts go on at a time.
      length_penalty: above 0 favours long texts, below short ones.

    Returns:
      The new tokens of the best text of each prompt, without `end`.
    """
    if beams < 1:
        raise UserError(f'A search needs one beam or more, not {beams}.')
    tokens, valid = checked(prompts, end)
    options: Any = dict(end=end, source=source, beams=beams, length_penalty=length_penalty)
    return [until(row, end) for row in np.asarray(written(graph, params, tokens, valid, length, **options))]


def written(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    tokens: Any,
    valid: Any,
    length: int,
    *,
    end: int,
    source: Sequence[Any] = (),
    beams: int = 1,
    length_penalty: float = 1.0,
) -> jax.Array:
    """As `search`, for a compiled function to call: tokens [B, length] that go on from rows, `end` after their end.

    `tokens` and `valid` [B, T] are those of `right_aligned`. One beam always takes the likeliest token.
    """
    slots = tokens.shape[1] + length
    state = begin(graph, params, tokens, valid, source, jax.random.key(0), slots)
    if beams == 1:
        return go_on(graph, params, state, Sampling(), end, length)[1]
    return _search(graph, params, state, beams, end, length, length_penalty)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5, 6))
def _search(
    graph: module.Graph, params: Any, state: State, k: int, end: int, length: int, penalty: float
) -> jax.Array:
    batch, vocabulary = state.scores.shape
    spread = {f: jax.tree.map(lambda x: jnp.repeat(x, k, 0), getattr(state, f)) for f in _BY_ROW}
    nothing = jnp.full((batch, k, length), end, jnp.int32)
    none = jnp.full((batch, k), -jnp.inf)
    first = jnp.where(jnp.arange(k) == 0, 0.0, none)  # all beams of a row are the same yet
    everywhere = jnp.ones(batch, bool)
    first_beams = Beams(state._replace(**spread), nothing, first, nothing, none, jnp.int32(0), everywhere)

    def step(now: Beams) -> Beams:
        scores = jax.nn.log_softmax(now.state.scores).reshape(batch, k, vocabulary)
        totals = (now.totals[..., None] + scores).reshape(batch, -1)
        totals, chosen = jax.lax.top_k(totals, 2 * k)  # k of them go on, however many end
        beam, token = chosen // vocabulary, (chosen % vocabulary).astype(jnp.int32)
        tokens = jnp.take_along_axis(now.tokens, beam[..., None], 1).at[:, :, now.made].set(token)
        made = now.made + 1
        ends = (token == end) | (made == length)
        normal = totals / made.astype(jnp.float32) ** penalty
        normal = jnp.where(now.open[:, None] & ends & (jnp.arange(2 * k) < k), normal, -jnp.inf)
        best, kept = jax.lax.top_k(jnp.concatenate([now.best, normal], 1), k)
        ended = jnp.take_along_axis(jnp.concatenate([now.ended, tokens], 1), kept[..., None], 1)
        totals, kept = jax.lax.top_k(jnp.where(token == end, -jnp.inf, totals), k)
        beam, token = (jnp.take_along_axis(x, kept, 1) for x in (beam, token))
        tokens = jnp.take_along_axis(tokens, kept[..., None], 1)
        rows = (jnp.arange(batch)[:, None] * k + beam).reshape(-1)
        state = now.state._replace(**{f: _taken(getattr(now.state, f), rows) for f in _BY_ROW})
        hope = totals.max(1) / made.astype(jnp.float32) ** penalty
        going = now.open & (hope > best.min(1))
        return Beams(read(graph, params, state, token.reshape(-1)), tokens, totals, ended, best, made, going)

    def goes_on(now: Beams) -> jax.Array:
        return (now.made < length) & now.open.any()

    with cpu_decoding.matrices_read_often():
        found = jax.lax.while_loop(goes_on, step, first_beams)
    return found.ended[:, 0]


def _taken(tree: Any, rows: jax.Array) -> Any:
    """These rows of all that beams differ in: those of one row read the same text."""
    return jax.tree.map(
        lambda x: x if isinstance(x, Read) else x[rows], tree, is_leaf=lambda x: isinstance(x, Read)
    )


# What a state has of each row.
_BY_ROW = ('scores', 'cache', 'seen', 'positions', 'done')
