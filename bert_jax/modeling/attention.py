"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), by the fastest kernel of each device."""

import contextlib
import contextvars
import functools
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning
from bert_jax.modeling import local_attention
from bert_jax.modeling.dropout import dropout
from bert_jax.modeling.masks import Mask

Implementation = Literal['auto', 'xla', 'cudnn', 'splash']
_recorded: contextvars.ContextVar[list[jax.Array] | None] = contextvars.ContextVar('recorded', default=None)


@contextlib.contextmanager
def record_weights(enabled: bool = True) -> Iterator[list[jax.Array]]:
    """Collect the attention weights of all calls of `attend` in the block, which then use XLA.

    A function that JAX transforms must return the weights that it collects, as `Stack` does for each block.

    Yields:
      A list that is filled with float32 arrays [B, N, Tq, Tk], in the order of the calls; it stays empty unless
      `enabled`.
    """
    weights: list[jax.Array] = []
    token = _recorded.set(weights if enabled else None)
    try:
        yield weights
    finally:
        _recorded.reset(token)


def records_weights() -> bool:
    """Return whether the enclosing `record_weights` collects weights."""
    return _recorded.get() is not None


def add_weights(weights: Iterable[jax.Array]) -> None:
    """Add attention weights to the list of the enclosing `record_weights`, if there is one."""
    if (recorded := _recorded.get()) is not None:
        recorded.extend(weights)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask | jax.Array | None,
    *,
    implementation: Implementation = 'auto',
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Compute attention of queries to keys.

    With `implementation='auto'` and no dropout, TPUs use splash attention for masks by document and lengths
    that are multiples of 128; NVIDIA GPUs of compute capability 8 or higher use cuDNN in half precision for
    even lengths. Everything else uses XLA. A mask with a window is computed block by block (`local_attention`), unless
    the row is hardly longer than the window.

    Args:
      q: [B, N, Tq, H] queries.
      k: [B, K, Tk, H] keys; each of the K heads serves N / K consecutive query heads.
      v: [B, K, Tk, H] values.
      mask: a `Mask`; or an array broadcastable to [B, N, Tq, Tk], booleans that are true where attention is
        allowed or float32 numbers added to the scores; or None.
      implementation: kernel to use where it applies; the others fall back to XLA.
      dropout_rate: dropout rate of attention probabilities, which only XLA supports.
      key: random key of dropout; None disables dropout.

    Returns:
      [B, N, Tq, H] in the dtype of `q`; the softmax is computed in float32.
    """
    has_dropout = key is not None and dropout_rate > 0
    if records_weights():  # the other kernels do not return them
        implementation = 'xla'
    if implementation == 'auto':
        implementation = 'xla' if has_dropout else _fastest(q, k, mask)
    if implementation == 'splash' and not has_dropout and _splash_supports(q, k, mask):
        return _splash(q, k, v, mask if isinstance(mask, Mask) else Mask())
    if isinstance(mask, Mask):
        if local_attention.saves_work(mask, k.shape[2]) and not records_weights():
            return local_attention.attend(q, k, v, mask, dropout_rate, key)
        mask = mask.to_array(q.shape[2], k.shape[2])
    if implementation == 'cudnn' and not has_dropout:
        return _cudnn(q, k, v, mask)
    if k.shape[1] != q.shape[1]:
        k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = jnp.einsum('bnqh,bnkh->bnqk', q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    if mask is not None and mask.dtype == bool:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    elif mask is not None:
        scores += mask
    probabilities = jax.nn.softmax(scores, axis=-1)
    add_weights([probabilities])
    weights = probabilities.astype(q.dtype)
    if has_dropout:
        weights = dropout(weights, dropout_rate, key, ('batch', 'heads'))
    return jnp.einsum('bnqk,bnkh->bnqh', weights, v)


def _fastest(q: jax.Array, k: jax.Array, mask: Any) -> Implementation:
    """Choose the fastest kernel that the device supports for these arguments."""
    if partitioning.target_platform() == 'tpu' and _splash_supports(q, k, mask):
        return 'splash'
    return 'cudnn' if partitioning.target_platform() == 'gpu' and _cudnn_supports(q, k) else 'xla'


def _cudnn_supports(q: jax.Array, k: jax.Array) -> bool:
    if q.shape[2] % 2 or k.shape[2] % 2:  # cuDNN has no gradient of masked attention for odd lengths
        return False
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    capability = getattr(jax.devices()[0], 'compute_capability', '0')
    return float(capability) >= 8 and q.shape[-1] % 8 == 0


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Run cuDNN's fused attention for NVIDIA GPUs, with a boolean or additive mask."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    options: dict[str, Any] = {}
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], q.shape[1], k.shape[1]))
        if mask.dtype == bool:
            options = {'mask': mask}
        else:  # in half precision the lowest float32 is -inf, and a query that may attend to nothing becomes NaN
            options = {'bias': jnp.maximum(mask, jnp.finfo(q.dtype).min.astype(mask.dtype)).astype(q.dtype)}
    return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, implementation='cudnn', **options), 1, 2)


def _splash_supports(q: jax.Array, k: jax.Array, mask: Any) -> bool:
    partitioner = partitioning.active()
    head_shards = 1 if partitioner is None else partitioner.mesh.shape['tensor']
    return (
        (mask is None or isinstance(mask, Mask))
        and not q.shape[2] % 128
        and not k.shape[2] % 128
        and (head_shards == 1 or q.shape[1] == k.shape[1])
    )


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask) -> jax.Array:
    """Run JAX's splash attention for TPUs on each device's rows and heads; other devices interpret it, for tests."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

    (batch, _, tq, _), tk = q.shape, k.shape[2]
    block_q, block_k = (next(n for n in (512, 256, 128) if t % n == 0) for t in (tq, tk))
    block_sizes = splash.BlockSizes(
        block_q=block_q, block_kv=block_k, block_kv_compute=block_k, block_q_dkv=block_q, block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k, use_fused_bwd_kernel=True,
    )  # fmt: skip
    documents = None
    queries, keys = mask.query_documents, mask.key_documents
    if keys is not None:
        if queries is None:  # number all documents 1, so that queries attend to every real key
            queries, keys = jnp.ones((batch, tq), jnp.int32), jnp.minimum(keys, 1)
        documents = splash.SegmentIds(queries, keys)

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array, documents: Any) -> jax.Array:
        mask_type = splash_attention_mask.CausalMask if mask.causal else splash_attention_mask.FullMask
        head_mask: Any = mask_type((tq, tk))
        if mask.window:
            window = mask.window, 0 if mask.causal else mask.window
            head_mask = splash_attention_mask.LocalMask((tq, tk), window, offset=0)
        attention = splash.make_splash_mha_single_device(
            splash_attention_mask.MultiHeadMask([head_mask] * q.shape[1]),
            block_sizes=block_sizes,
            interpret=partitioning.target_platform() != 'tpu',
        )
        return jax.vmap(attention)(q * q.shape[-1] ** -0.5, k, v, segment_ids=documents)

    partitioner = partitioning.active()
    if partitioner is None or partitioner.mesh.size == 1:
        return kernel(q, k, v, documents)
    heads, rows = (partitioner.spec(axes) for axes in (('batch', 'heads', None, None), ('batch', None)))
    run = functools.partial(jax.shard_map, mesh=partitioner.mesh, out_specs=heads, check_vma=False)
    return run(kernel, in_specs=(heads, heads, heads, rows))(q, k, v, documents)
