"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) by the means of each device."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from bert_jax.modeling.dropout import dropout

Implementation = Literal['auto', 'xla', 'cudnn']


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    *,
    implementation: Implementation = 'auto',
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Attention of queries to keys.

    Args:
      q: [B, N, Tq, H], heads in front of positions.
      k, v: [B, K, Tk, H]; each of the K heads serves N / K of the queries' heads, in order.
      mask: broadcastable to [B, N, Tq, Tk], true where allowed, or float32 numbers to add to the scores, or None.
      implementation: 'auto' takes cuDNN on NVIDIA GPUs of compute capability 8 or more in half
        precision, for even lengths without dropout, and XLA elsewhere.
      rate: dropout of attention probabilities, with `key`; only XLA does it.
      key: randomness, or None for no dropout.

    Returns:
      [B, N, Tq, H] in the type of `q`; the softmax is computed in float32.
    """
    drops = key is not None and rate > 0
    if implementation == 'auto':
        implementation = 'cudnn' if _cudnn_can(q, k) and not drops else 'xla'
    if implementation == 'cudnn' and not drops:
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        given: dict[str, Any] = {}
        if mask is not None:
            mask = jnp.broadcast_to(mask, (*mask.shape[:2], q.shape[1], k.shape[1]))
            given = {'mask': mask} if mask.dtype == bool else {'bias': mask.astype(q.dtype)}
        return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, implementation='cudnn', **given), 1, 2)
    if k.shape[1] != q.shape[1]:
        k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = jnp.einsum('bnqh,bnkh->bnqk', q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    if mask is not None and mask.dtype == bool:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    elif mask is not None:
        scores += mask
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    if drops:
        weights = dropout(weights, rate, key)
    return jnp.einsum('bnqk,bnkh->bnqh', weights, v)


def _cudnn_can(q: jax.Array, k: jax.Array) -> bool:
    if q.shape[2] % 2 or k.shape[2] % 2:  # there are no gradients of masked attention for these
        return False
    if jax.default_backend() != 'gpu' or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    capability = getattr(jax.devices()[0], 'compute_capability', '0')
    return float(capability) >= 8 and q.shape[-1] % 8 == 0
