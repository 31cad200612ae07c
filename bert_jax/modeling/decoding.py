"""Greedy and sampled generation with a key-value cache; beam search is in `beam_search`."""

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
    """Settings of greedy decoding and sampling.

    Attributes:
      temperature: divisor of the logits; 0 always takes the most probable token.
      top_k: number of most probable tokens to sample from (Fan et al. 2018); 0 means all.
      top_p: probability mass of the most probable tokens to sample from (Holtzman et al. 2020); 1 means all.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f'temperature={self.temperature}, top_k={self.top_k} or top_p={self.top_p} is out of range. '
                'Set temperature and top_k to 0 or more, and top_p above 0 and at most 1.'
            )


class DecodingState(NamedTuple):
    """State of a generation in progress.

    Attributes:
      logits: [B, V] logits of the next token.
      cache: keys and values of all tokens so far.
      filled: [B, S] booleans, the cache slots that hold a token.
      positions: [B] position of the next token.
      slot: cache slot of the next token.
      is_finished: [B] booleans, whether the row has generated its end token.
      key: random key of sampling.
    """

    logits: jax.Array
    cache: Any
    filled: jax.Array
    positions: jax.Array
    slot: jax.Array
    is_finished: jax.Array
    key: jax.Array


def left_pad(prompts: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Stack prompts into rows padded on the left: token ids [B, T], and booleans [B, T], false on padding.

    Raises:
      UserError: if there is no prompt, or one without tokens.
    """
    if not prompts or min(map(len, prompts)) == 0:
        raise UserError('The prompt is empty. Pass a prompt of at least one token.')
    sizes = np.array([*map(len, prompts)])
    length = sizes.max()
    tokens = np.full((len(prompts), length), pad, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[length - len(prompt) :] = prompt
    return tokens, np.arange(length) >= length - sizes[:, None]


def to_left_padding(tokens: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Move the padding of rows [B, T] from the right to the left, as in `left_pad`; works under `jax.jit`."""
    length = tokens.shape[1]
    sizes = valid.sum(1, keepdims=True, dtype=jnp.int32)
    sources = jnp.arange(length, dtype=jnp.int32) - (length - sizes)
    return jnp.take_along_axis(tokens, jnp.maximum(sources, 0), axis=1), sources >= 0


def truncate(row: np.ndarray, end: int) -> np.ndarray:
    """Cut a row before the first `end` token."""
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
    chunk: int = 1,
) -> Iterator[np.ndarray]:
    """Generate up to `length` tokens for each prompt, a chunk at a time.

    Args:
      graph: structure of a model that has `init_cache` and `extend`.
      params: parameters of the model.
      prompts: token ids of each prompt, at least one.
      length: maximal number of new tokens.
      end: id of the token that ends a row.
      source: for an encoder-decoder, the source token ids [B, S] and booleans [B, S], false on padding.
      sampling: how tokens are chosen.
      seed: seed of sampling.
      chunk: number of tokens in each yielded array.

    Yields:
      [B, chunk] new token ids, `end` after the end of a row; stops when all rows have ended.

    Raises:
      UserError: if a prompt is empty, or prompt and new tokens exceed the positions of the model.
    """
    tokens, valid = left_pad(prompts, end)
    state = prefill(graph, params, tokens, valid, source, jax.random.key(seed), tokens.shape[1] + length)
    for start in range(0, length, chunk):
        state, new = decode(graph, params, state, sampling, end, min(chunk, length - start))
        yield np.asarray(new)
        if bool(state.is_finished.all()):
            return


def generate(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    prompts: Sequence[np.ndarray],
    length: int,
    *,
    end: int,
    **options: Any,
) -> list[np.ndarray]:
    """Return the new tokens of each prompt, without `end`; the options are `source`, `sampling` and `seed` of `stream`."""
    (rows,) = stream(graph, params, prompts, length, end=end, chunk=length, **options)
    return [truncate(row, end) for row in rows]


@functools.partial(jax.jit, static_argnums=(0, 6))
def prefill(
    graph: module.Graph,
    params: Any,
    tokens: jax.Array,
    valid: jax.Array,
    source: Sequence[jax.Array],
    key: jax.Array,
    slots: int,
) -> DecodingState:
    """Run the model on left-padded prompts [B, T], with a new cache that has room for `slots` tokens per row."""
    model = module.merge(graph, params)
    batch, length = tokens.shape
    filled = jnp.pad(valid, ((0, 0), (0, slots - length)))
    positions = jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)
    mask = jnp.tril(jnp.ones((length, slots), bool)) & filled[:, None, None, :]
    cache = model.init_cache(batch, slots, *source)
    logits, cache = model.extend(tokens, mask, positions, cache, jnp.int32(0))
    is_finished = jnp.zeros(batch, bool)
    return DecodingState(logits, cache, filled, positions[:, -1] + 1, jnp.int32(length), is_finished, key)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5), donate_argnums=2)
def decode(
    graph: module.Graph, params: Any, state: DecodingState, sampling: Sampling, end: int, n: int
) -> tuple[DecodingState, jax.Array]:
    """Generate n tokens per row; return the new state and the token ids [B, n]."""

    def step(state: DecodingState, _: None) -> tuple[DecodingState, jax.Array]:
        key, sample_key = jax.random.split(state.key)
        new = jnp.where(state.is_finished, end, sample(state.logits, sampling, sample_key))
        state = append(graph, params, state, new)
        return state._replace(is_finished=state.is_finished | (new == end), key=key), new

    with cpu_decoding.packed_matrices(n > 4):
        state, new = jax.lax.scan(step, state, None, n)
    return state, new.T


def append(graph: module.Graph, params: Any, state: DecodingState, new: jax.Array) -> DecodingState:
    """Process one new token per row, [B], and compute the logits of the next."""
    filled = state.filled.at[:, state.slot].set(True)
    logits, cache = module.merge(graph, params).extend(
        new[:, None], filled[:, None, None, :], state.positions[:, None], state.cache, state.slot
    )
    return state._replace(
        logits=logits, cache=cache, filled=filled, positions=state.positions + 1, slot=state.slot + 1
    )


def sample(logits: jax.Array, sampling: Sampling, key: jax.Array) -> jax.Array:
    """Choose the next token of each row from logits [B, V], as int32 [B]."""
    if sampling.temperature == 0:
        return argmax(logits)
    logits = logits / sampling.temperature
    if sampling.top_k:
        lowest = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < lowest, -jnp.inf, logits)
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered)
        mass_before = jnp.cumsum(probabilities, -1) - probabilities
        kept = (mass_before < sampling.top_p).sum(-1, keepdims=True)  # at least 1: nothing precedes the first
        lowest = jnp.take_along_axis(ordered, kept - 1, axis=-1)
        logits = jnp.where(logits < lowest, -jnp.inf, logits)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def argmax(logits: jax.Array, block: int = 256) -> jax.Array:
    """Return the index of the first maximum in each row of logits [B, V], as int32 [B].

    First find the block that holds the maximum, then the index inside it, because XLA on a CPU vectorizes
    `max` but not `argmax`.
    """
    batch, vocabulary = logits.shape
    blocks = jnp.pad(logits, ((0, 0), (0, -vocabulary % block)), constant_values=-jnp.inf)
    blocks = blocks.reshape(batch, -1, block)
    best = blocks.max(-1).argmax(-1)
    inside = jnp.take_along_axis(blocks, best[:, None, None], 1)[:, 0].argmax(-1)
    return (best * block + inside).astype(jnp.int32)
