"""Generate text with a masked language model: replace masks step by step (Nie et al. 2025, arXiv 2502.09992, section 2.4)."""

import functools
import math
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.modeling import module
from bert_jax.modeling.decoding import Sampling, sample


def unmask(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    tokens: np.ndarray,
    mask: int,
    allowed: np.ndarray,
    *,
    sampling: Sampling,
    steps: int = 0,
    seed: int = 0,
    mask_offset: int = 0,
) -> Iterator[np.ndarray]:
    """Replace the masks of a text, those with the most confident predictions first.

    Args:
      graph: structure of a masked language model.
      params: its parameters.
      tokens: [T] token ids with masks.
      mask: id of the mask token.
      allowed: ids of the tokens that may replace a mask.
      sampling: how the token of a mask is chosen. Its confidence is its probability.
      steps: number of steps, between which the masks are divided equally; 0 replaces one mask per step.
      seed: seed of the sampling.
      mask_offset: see `tasks.mlm.Task`.

    Yields:
      [T] token ids after each step.
    """
    tokens, key = tokens.astype(np.int32), jax.random.key(seed)
    remaining = int((tokens == mask).sum())
    steps = min(steps, remaining) or remaining
    for step in range(steps):
        options = (jax.random.fold_in(key, step), sampling, mask_offset)
        choices, confidence = _predict(graph, params, tokens, allowed, *options)
        count = math.ceil(remaining / (steps - step))
        confidence = np.where(tokens == mask, np.asarray(confidence), -np.inf)
        best = np.argsort(-confidence, kind='stable')[:count]
        tokens = tokens.copy()
        tokens[best] = np.asarray(choices)[best]
        remaining -= count
        yield tokens


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _predict(
    graph: module.Graph,
    params: Mapping[str, jax.Array],
    tokens: jax.Array,
    allowed: jax.Array,
    key: jax.Array,
    sampling: Sampling,
    mask_offset: int,
) -> tuple[jax.Array, jax.Array]:
    """Choose a token for each position [T]; return the tokens and their log-probabilities."""
    logits = module.merge(graph, params)(tokens[None]).logits[0]
    logits = logits[jnp.maximum(jnp.arange(len(tokens)) - mask_offset, 0)]
    is_allowed = jnp.zeros(logits.shape[-1], bool).at[allowed].set(True)
    logits = jnp.where(is_allowed, logits, -jnp.inf)
    choices = sample(logits, sampling, key)
    return choices, jnp.take_along_axis(jax.nn.log_softmax(logits), choices[:, None], axis=-1)[:, 0]
