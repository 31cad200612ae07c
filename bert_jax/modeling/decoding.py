"""Text from a model that predicts the next token, greedy or sampled, with a key-value cache; see `beams` for a search."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import cpu_decoding, module


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How each next token is chosen.

    Attributes:
      temperature: scores are divided by it; 0 takes the likeliest token.
      top_k: only the k likeliest are drawn from; 0 is all (Fan et al. 2018).
      top_p: only the likeliest whose probabilities add up to p are drawn from (Holtzman et al. 2020).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f'temperature and top_k are at least 0, and top_p is above 0 and at most 1; got {self}.'
            )


class State(NamedTuple):
    """A generation on its way.

    Attributes:
      scores: [B, V] of the next token.
      cache: keys and values of the tokens so far.
      seen: [B, S] booleans, which slots of the cache hold a token.
      positions: [B], of the next token.
      slot: where in the cache it goes.
      done: [B] booleans, whether the row has ended.
      key: randomness of what is drawn.
    """

    scores: jax.Array
    cache: Any
    seen: jax.Array
    positions: jax.Array
    slot: jax.Array
    done: jax.Array
    key: jax.Array


def right_aligned(prompts: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as rows that end together: tokens [B, T], padded in front, and which are real."""
    length = max(map(len, prompts))
    tokens = np.full((len(prompts), length), pad, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[length - len(prompt) :] = prompt
    sizes = np.array([*map(len, prompts)])
    return tokens, np.arange(length) >= length - sizes[:, None]


def aligned(tokens: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `right_aligned`, of rows [B, T] that are padded at their ends; for a compiled function to call."""
    length = tokens.shape[1]
    sizes = valid.sum(1, keepdims=True, dtype=jnp.int32)
    places = jnp.arange(length, dtype=jnp.int32) - (length - sizes)
    return jnp.take_along_axis(tokens, jnp.maximum(places, 0), axis=1), places >= 0


def checked(prompts: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    if not prompts or min(map(len, prompts)) == 0:
        raise UserError('There is nothing to go on from: give a prompt of one token or more.')
    return right_aligned(prompts, pad)


def until(row: np.ndarray, end: int) -> np.ndarray:
    """What stands in a row before `end`."""
    return row[: np.argmax(row == end)] if (row == end).any() else row


def stream(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    prompts: Sequence[np.ndarray],
    length: int,
    *,
    end: int,
    source: Sequence[np.ndarray] = (),
    sampling: Sampling = Sampling(),
    seed: int = 0,
    every: int = 1,
) -> Iterator[np.ndarray]:
    """Generates up to `length` tokens for each prompt.

    Args:
      graph, params: a model that has `empty_cache` and `extend`.
      prompts: ids, each of one token or more.
      length: new tokens at most.
      end: the token after which a row has ended.
      source: for an encoder-decoder, the text that is read, [B, S] tokens, and which of them are real.
      sampling: how tokens are chosen.
      seed: of what is drawn.
      every: how many tokens are made at a time.

    Yields:
      [B, every] new tokens, `end` where a row has ended; it stops when all have.

    Raises:
      UserError: for a prompt without tokens, or if prompt and text are longer than the model's positions.
    """
    tokens, valid = checked(prompts, end)
    state = begin(graph, params, tokens, valid, source, jax.random.key(seed), tokens.shape[1] + length)
    for made in range(0, length, every):
        state, new = go_on(graph, params, state, sampling, end, min(every, length - made))
        yield np.asarray(new)
        if bool(state.done.all()):
            return


def generate(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    prompts: Sequence[np.ndarray],
    length: int,
    *,
    end: int,
    source: Sequence[np.ndarray] = (),
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> list[np.ndarray]:
    """As `stream`, at once: the new tokens of each prompt, without `end`."""
    options: Any = dict(end=end, source=source, sampling=sampling, seed=seed, every=length)
    (rows,) = stream(graph, params, prompts, length, **options)
    return [until(row, end) for row in rows]


@functools.partial(jax.jit, static_argnums=(0, 6))
def begin(
    graph: module.Graph,
    params: Any,
    tokens: jax.Array,
    valid: jax.Array,
    source: Sequence[jax.Array],
    key: jax.Array,
    slots: int,
) -> State:
    """Reads the prompts."""
    model = module.merge(graph, params)
    batch, length = tokens.shape
    seen = jnp.pad(valid, ((0, 0), (0, slots - length)))
    positions = jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)
    mask = jnp.tril(jnp.ones((length, slots), bool)) & seen[:, None, None, :]
    scores, cache = model.extend(
        tokens, mask, positions, model.empty_cache(batch, slots, *source), jnp.int32(0)
    )
    done = jnp.zeros(batch, bool)
    return State(scores, cache, seen, positions[:, -1] + 1, jnp.int32(length), done, key)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5), donate_argnums=2)
def go_on(
    graph: module.Graph, params: Any, state: State, sampling: Sampling, end: int, n: int
) -> tuple[State, jax.Array]:
    """n more tokens."""

    def step(state: State, _: None) -> tuple[State, jax.Array]:
        key, draw = jax.random.split(state.key)
        new = jnp.where(state.done, end, choose(state.scores, sampling, draw))
        state = read(graph, params, state, new)
        return state._replace(done=state.done | (new == end), key=key), new

    with cpu_decoding.matrices_read_often(n > 4):
        state, made = jax.lax.scan(step, state, None, n)
    return state, made.T


def read(graph: module.Graph, params: Any, state: State, new: jax.Array) -> State:
    """Goes on from a token [B] of each row."""
    seen = state.seen.at[:, state.slot].set(True)
    scores, cache = module.merge(graph, params).extend(
        new[:, None], seen[:, None, None, :], state.positions[:, None], state.cache, state.slot
    )
    return state._replace(
        scores=scores, cache=cache, seen=seen, positions=state.positions + 1, slot=state.slot + 1
    )


def choose(scores: jax.Array, sampling: Sampling, key: jax.Array) -> jax.Array:
    """One token [B] for each row of scores [B, V]."""
    if sampling.temperature == 0:
        return likeliest(scores)
    scores = scores / sampling.temperature
    if sampling.top_k:
        lowest = jax.lax.top_k(scores, min(sampling.top_k, scores.shape[-1]))[0][:, -1:]
        scores = jnp.where(scores < lowest, -jnp.inf, scores)
    if sampling.top_p < 1:
        ordered = jnp.sort(scores, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered), -1) - jax.nn.softmax(ordered)
        kept = (before < sampling.top_p).sum(-1, keepdims=True)  # the first always
        lowest = jnp.take_along_axis(ordered, kept - 1, axis=-1)
        scores = jnp.where(scores < lowest, -jnp.inf, scores)
    return jax.random.categorical(key, scores).astype(jnp.int32)


def likeliest(scores: jax.Array, block: int = 256) -> jax.Array:
    """The first of the highest of scores [B, V], as int32 [B].

    First the highest block of entries, then the entry: a CPU finds a maximum many entries at a time, but where it is one at
    a time.
    """
    batch, vocabulary = scores.shape
    blocks = jnp.pad(scores, ((0, 0), (0, -vocabulary % block)), constant_values=-jnp.inf)
    blocks = blocks.reshape(batch, -1, block)
    best = blocks.max(-1).argmax(-1)
    inside = jnp.take_along_axis(blocks, best[:, None, None], 1)[:, 0].argmax(-1)
    return (best * block + inside).astype(jnp.int32)
