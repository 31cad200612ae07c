"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) by the means of each device."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning
from bert_jax.modeling.dropout import dropout
from bert_jax.modeling.masks import Mask

Implementation = Literal['auto', 'xla', 'cudnn', 'splash']


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask | jax.Array | None,
    *,
    implementation: Implementation = 'auto',
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Attention of queries to keys.

    Args:
      q: [B, N, Tq, H], heads in front of positions.
      k, v: [B, K, Tk, H]; each of the K heads serves N / K of the queries' heads, in order.
      mask: who sees whom; or an array broadcastable to [B, N, Tq, Tk], true where allowed, or float32 numbers to add
        to the scores; or None.
      implementation: without dropout 'auto' takes on TPUs splash attention, for a `Mask` and lengths that are multiples
        of 128, and on NVIDIA GPUs of compute capability 8 or more cuDNN, in half precision, for even lengths; elsewhere XLA.
      rate: dropout of attention probabilities, with `key`; only XLA does it.
      key: randomness, or None for no dropout.

    Returns:
      [B, N, Tq, H] in the type of `q`; the softmax is computed in float32.
    """
    drops = key is not None and rate > 0
    if implementation == 'auto':
        implementation = 'xla' if drops else _best(q, k, mask)
    if implementation == 'splash' and not drops and _splash_can(q, k, mask):
        return _splash(q, k, v, mask if isinstance(mask, Mask) else Mask())
    if isinstance(mask, Mask):
        mask = mask.array(q.shape[2], k.shape[2])
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


def _best(q: jax.Array, k: jax.Array, mask: Any) -> Implementation:
    """What the device is fastest with, of what it can do here."""
    if partitioning.platform() == 'tpu' and _splash_can(q, k, mask):
        return 'splash'
    return 'cudnn' if partitioning.platform() == 'gpu' and _cudnn_can(q, k) else 'xla'


def _cudnn_can(q: jax.Array, k: jax.Array) -> bool:
    if q.shape[2] % 2 or k.shape[2] % 2:  # there are no gradients of masked attention for these
        return False
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    capability = getattr(jax.devices()[0], 'compute_capability', '0')
    return float(capability) >= 8 and q.shape[-1] % 8 == 0


def _splash_can(q: jax.Array, k: jax.Array, mask: Any) -> bool:
    partitioner = partitioning.active()
    split = 1 if partitioner is None else partitioner.mesh.shape['tensor']
    by_texts = mask is None or isinstance(mask, Mask)
    return (
        by_texts
        and not q.shape[2] % 128
        and not k.shape[2] % 128
        and (split == 1 or q.shape[1] == k.shape[1])
    )


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask) -> jax.Array:
    """The kernel that comes with JAX for TPUs, on each device's rows and heads; elsewhere it is interpreted, for tests."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as static

    (batch, _, tq, _), tk = q.shape, k.shape[2]
    block_q, block_k = (next(n for n in (512, 256, 128) if t % n == 0) for t in (tq, tk))
    sizes = splash.BlockSizes(
        block_q=block_q, block_kv=block_k, block_kv_compute=block_k, block_q_dkv=block_q, block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k, use_fused_bwd_kernel=True,
    )  # fmt: skip
    numbers = None
    if mask.keys is not None:
        looking = jnp.ones((batch, tq), jnp.int32) if mask.queries is None else mask.queries
        numbers = splash.SegmentIds(
            looking, mask.keys if mask.queries is not None else jnp.minimum(mask.keys, 1)
        )

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array, numbers: Any) -> jax.Array:
        shape = static.CausalMask((tq, tk)) if mask.causal else static.FullMask((tq, tk))
        call = splash.make_splash_mha(
            static.MultiHeadMask([shape] * q.shape[1]),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=sizes,
            interpret=partitioning.platform() != 'tpu',
        )
        return jax.vmap(call)(q * q.shape[-1] ** -0.5, k, v, segment_ids=numbers)

    partitioner = partitioning.active()
    if partitioner is None or partitioner.mesh.size == 1:
        return kernel(q, k, v, numbers)
    heads, rows = (partitioner.spec(axes) for axes in (('batch', 'heads', None, None), ('batch', None)))
    run = functools.partial(jax.shard_map, mesh=partitioner.mesh, out_specs=heads, check_vma=False)
    return run(kernel, in_specs=(heads, heads, heads, rows))(q, k, v, numbers)
