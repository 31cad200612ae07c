"""Losses over logits, in float32."""

from typing import Any

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of `labels` [...] under `logits` [..., C]."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


@jax.custom_vjp
def vocabulary_loss(
    x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of `x @ table.T + bias` against labels, without a second pass over the logits.

    The exponentials [M, V] are computed once and kept; their normalisation is folded into the small
    operands of the two products of the backward pass.

    Args:
      x: [M, D].
      table: [V, D] word embeddings, in the type of `x`.
      bias: [V] float32; -1e9 keeps an entry out.
      labels: [M] integers.

    Returns:
      The loss [M] and whether the label had the highest score [M]; the latter has no gradient.
    """
    return _vocabulary_loss(x, table, bias, labels)[0]


def _product(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    dims = ((contract[:1], contract[1:]), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _vocabulary_loss(x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array) -> Any:
    logits = _product(x, table, (1, 1)) + bias
    highest = logits.max(1)
    exponentials = jnp.exp(logits - highest[:, None])
    total = exponentials.sum(1)
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    loss = jnp.log(total) + highest - picked
    return (loss, picked >= highest), (exponentials.astype(x.dtype), total, x, table, labels)


def _vocabulary_loss_backward(saved: Any, cotangents: Any) -> Any:
    exponentials, total, x, table, labels = saved
    weight = cotangents[0][:, None]
    scale = weight / total[:, None]
    wide = x.astype(jnp.float32)
    dx = scale * _product(exponentials, table, (1, 0)) - weight * table[labels].astype(jnp.float32)
    # The bias's gradient is one more row of the same product.
    left = jnp.concatenate([wide * scale, scale], 1).astype(x.dtype)
    both = _product(left, exponentials, (0, 0))
    dtable = both[:-1].T.at[labels].add(-weight * wide)
    dbias = both[-1].at[labels].add(-weight[:, 0])
    return dx.astype(x.dtype), dtable.astype(table.dtype), dbias, None


vocabulary_loss.defvjp(_vocabulary_loss, _vocabulary_loss_backward)


def sequence_loss(
    hidden: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array, chunk: int = 0
) -> tuple[jax.Array, jax.Array]:
    """`vocabulary_loss` of every position of a row, some positions at a time.

    A chunk's logits are computed again in the backward pass, so that [B, chunk, V] is the most that is
    in memory at once.

    Args:
      hidden: [B, T, D].
      table, bias: as of `vocabulary_loss`.
      labels: [B, T] integers.
      chunk: positions of each row at a time; 0 takes all at once and keeps [B, T, V].

    Returns:
      The loss and whether the label had the highest score, [B, T] each.
    """
    batch, length, width = hidden.shape

    def some(hidden: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, right = vocabulary_loss(hidden.reshape(-1, width), table, bias, labels.reshape(-1))
        return loss.reshape(labels.shape), right.reshape(labels.shape)

    if not 0 < chunk < length:
        return some(hidden, labels)
    n = -(-length // chunk)

    def parts(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, n * chunk - length), *[(0, 0)] * (x.ndim - 2)])
        return x.reshape(batch, n, chunk, *x.shape[2:]).swapaxes(0, 1)

    found = jax.lax.map(lambda part: jax.checkpoint(some)(*part), (parts(hidden), parts(labels)))
    loss, right = (x.swapaxes(0, 1).reshape(batch, -1)[:, :length] for x in found)
    return loss, right
