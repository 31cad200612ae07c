"""Cross-entropy losses, computed in float32."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute the negative log-likelihood of `labels` [...] under `logits` [..., C]."""
    logits = logits.astype(jnp.float32)
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - label_logits


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute the negative log-likelihood of boolean `labels` [...] under the log-odds `logits` [...]."""
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(jnp.where(labels, -logits, logits))


@jax.custom_vjp
def vocabulary_loss(
    x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the cross-entropy of the logits `x @ table.T + bias`; the backward pass does not recompute them.

    The forward pass stores the exponentials [M, V] of the softmax without dividing them by their sums. Instead,
    the backward pass divides the smaller arrays [M, D] that are the input or output of its matrix products.

    Args:
      x: [M, D] features.
      table: [V, D] token embedding, in the dtype of `x`.
      bias: [V] float32; -1e9 excludes an entry.
      labels: [M] integers.

    Returns:
      [M] losses, and [M] booleans without a gradient: whether the label has the highest logit.
    """
    return _vocabulary_loss(x, table, bias, labels)[0]


def _matmul(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Contract axis `contract[0]` of `a` with axis `contract[1]` of `b`; the result is float32."""
    dims = ((contract[:1], contract[1:]), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _vocabulary_loss(x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array) -> Any:
    logits = _matmul(x, table, (1, 1)) + bias
    highest = logits.max(1)
    exponentials = jnp.exp(logits - highest[:, None])
    total = exponentials.sum(1)
    label_logits = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    loss = jnp.log(total) + highest - label_logits
    return (loss, label_logits >= highest), (exponentials.astype(x.dtype), total, x, table, labels)


def _vocabulary_loss_backward(residuals: Any, cotangents: Any) -> Any:
    exponentials, total, x, table, labels = residuals
    weight = cotangents[0][:, None]
    scale = weight / total[:, None]
    x32 = x.astype(jnp.float32)
    dx = scale * _matmul(exponentials, table, (1, 0)) - weight * table[labels].astype(jnp.float32)
    # One product computes the gradients of the table (all rows but the last) and of the bias (the last).
    scaled = jnp.concatenate([x32 * scale, scale], 1).astype(x.dtype)
    gradients = _matmul(scaled, exponentials, (0, 0))
    dtable = gradients[:-1].T.at[labels].add(-weight * x32)
    dbias = gradients[-1].at[labels].add(-weight[:, 0])
    return dx.astype(x.dtype), dtable.astype(table.dtype), dbias, None


vocabulary_loss.defvjp(_vocabulary_loss, _vocabulary_loss_backward)


def sequence_loss(
    hidden: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array, chunk: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Compute `vocabulary_loss` at every position, a chunk of positions at a time.

    The backward pass recomputes the logits of each chunk, so that at most [B, chunk, V] logits are in memory.

    Args:
      hidden: [B, T, D] hidden states.
      table: [V, D] token embedding.
      bias: [V] float32; -1e9 excludes an entry.
      labels: [B, T] integers.
      chunk: number of positions of each row in a chunk; 0 keeps all logits [B, T, V].

    Returns:
      [B, T] losses, and [B, T] booleans: whether the label has the highest logit.
    """
    loss = functools.partial(_sequence_loss, chunk=chunk)
    return partitioning.map_shards(loss, (table, bias), hidden, labels)


def _sequence_loss(
    params: tuple[jax.Array, jax.Array], hidden: jax.Array, labels: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Compute `sequence_loss` with `params`, the table and the bias."""
    table, bias = params
    batch, length, width = hidden.shape

    def chunk_loss(hidden: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The cast is inside, so that the gradients of all chunks are added in float32.
        rows = table.astype(hidden.dtype)
        loss, correct = vocabulary_loss(hidden.reshape(-1, width), rows, bias, labels.reshape(-1))
        return loss.reshape(labels.shape), correct.reshape(labels.shape)

    if not 0 < chunk < length:
        return chunk_loss(hidden, labels)
    num_chunks = -(-length // chunk)

    def chunks(x: jax.Array) -> jax.Array:
        """Split [B, T, ...] into [chunks, B, chunk, ...]."""
        x = jnp.pad(x, [(0, 0), (0, num_chunks * chunk - length), *[(0, 0)] * (x.ndim - 2)])
        return x.reshape(batch, num_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    outputs = jax.lax.map(lambda part: jax.checkpoint(chunk_loss)(*part), (chunks(hidden), chunks(labels)))
    loss, correct = (x.swapaxes(0, 1).reshape(batch, -1)[:, :length] for x in outputs)
    return loss, correct
