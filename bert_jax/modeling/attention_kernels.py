"""Fused attention kernels of GPUs and TPUs, which do not store the scores [B, N, Tq, Tk], and what each supports."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning
from bert_jax.modeling.masks import Mask

Implementation = Literal['auto', 'xla', 'cudnn', 'splash', 'pallas']
AnyMask = Mask | jax.Array | None
_PADDED_LENGTH = 512  # splash attention pads rows that are at least as long to a multiple of its blocks
_HALF = (jnp.bfloat16, jnp.float16)


def choose(
    implementation: Implementation, q: jax.Array, k: jax.Array, mask: AnyMask
) -> tuple[Implementation, str]:
    """Choose `implementation` if it supports these arguments, or else the default of the target device.

    Arguments are those of `attention.attend`.

    Returns:
      The kernel, 'xla', 'cudnn', 'splash' or 'pallas'; and for 'xla' on an accelerator, the reason and what to do.
    """
    if implementation == 'xla':
        return 'xla', 'of model.attention_implementation=xla. Set it to auto'
    platform = partitioning.target_platform()
    for kernel, device, unsupported in (
        ('pallas', 'gpu', _pallas_unsupported),
        ('splash', 'tpu', _splash_unsupported),
    ):
        if implementation == kernel and platform in (device, 'cpu') and not unsupported(q, k, mask):
            return implementation, ''
    if platform == 'cpu':
        return 'xla', ''
    reason = (_splash_unsupported if platform == 'tpu' else _cudnn_unsupported)(q, k, mask)
    return ('xla', reason) if reason else ('splash' if platform == 'tpu' else 'cudnn', '')


def supported(q: jax.Array, k: jax.Array, mask: AnyMask) -> list[Implementation]:
    """Return the kernels that the target device runs for these arguments, to compare their speed; see `choose`."""
    kernels: tuple[Implementation, ...] = ('xla', 'cudnn', 'splash', 'pallas')
    return [kernel for kernel in kernels if choose(kernel, q, k, mask)[0] == kernel]


def needs_bias(mask: AnyMask) -> bool:
    """Return whether cuDNN needs the mask as an array [B, 1, Tq, Tk], because lengths of rows cannot express it."""
    if not isinstance(mask, Mask):
        return mask is not None
    return mask.query_documents is not None or (bool(mask.window) and not mask.causal)


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: AnyMask) -> jax.Array:
    """Run cuDNN's fused attention for NVIDIA GPUs; a mask that `needs_bias` must be an array."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    options: dict[str, Any] = {}
    if isinstance(mask, Mask):
        options['is_causal'] = mask.causal
        if mask.window:  # not combined with lengths: queries before the padding do not attend to it anyway
            options['local_window_size'] = (mask.window, 0)
        elif mask.key_documents is not None:
            lengths = (mask.key_documents != 0).sum(axis=1, dtype=jnp.int32)
            # The softmax over no key at all is NaN, so rows of padding attend to one key.
            options['key_value_seq_lengths'] = jnp.maximum(lengths, 1)
    elif mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], q.shape[1], k.shape[1]))
        if mask.dtype == bool:
            options = {'mask': mask}
        else:  # in half precision the lowest float32 is -inf, and a query that may attend to nothing becomes NaN
            options = {'bias': jnp.maximum(mask, jnp.finfo(q.dtype).min.astype(mask.dtype)).astype(q.dtype)}
    return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, implementation='cudnn', **options), 1, 2)


def pallas(q: jax.Array, k: jax.Array, v: jax.Array, mask: AnyMask) -> jax.Array:
    """Run JAX's Pallas attention for GPUs on each device's rows and heads; other devices interpret it, for tests.

    Padding attends to padding, so its outputs differ from those of the other kernels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # JAX 0.11 recommends the package tokamax instead
        from jax.experimental.pallas.ops.gpu import attention

    mask = mask if isinstance(mask, Mask) else Mask()
    interpret = partitioning.target_platform() != 'gpu'
    k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array, documents: Any) -> jax.Array:
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        y = attention.mha(q, k, v, documents, q.shape[-1] ** -0.5, mask.causal, interpret=interpret)
        return jnp.swapaxes(y, 1, 2)

    return _map_devices(kernel, q, k, v, mask.key_documents)


def splash(q: jax.Array, k: jax.Array, v: jax.Array, mask: AnyMask) -> jax.Array:
    """Run JAX's splash attention for TPUs on each device's rows and heads; other devices interpret it, for tests.

    Rows are padded to a multiple of 128 tokens.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

    mask = mask if isinstance(mask, Mask) else Mask()
    queries, keys = mask.query_documents, mask.key_documents
    num_queries, (pad_q, pad_k) = q.shape[2], (-x.shape[2] % 128 for x in (q, k))
    if pad_k and keys is None:
        keys = jnp.ones((k.shape[0], k.shape[2]), jnp.int32)
    q, k, v = _pad(q, pad_q, 2), _pad(k, pad_k, 2), _pad(v, pad_k, 2)
    (batch, _, tq, _), tk = q.shape, k.shape[2]
    block_q, block_k = (next(n for n in (512, 256, 128) if t % n == 0) for t in (tq, tk))
    block_sizes = splash.BlockSizes(
        block_q=block_q, block_kv=block_k, block_kv_compute=block_k, block_q_dkv=block_q, block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k, use_fused_bwd_kernel=True,
    )  # fmt: skip
    documents = None
    if keys is not None:
        if queries is None:  # number all documents 1, so that queries attend to every real key
            queries, keys = jnp.ones((batch, num_queries), jnp.int32), jnp.minimum(keys, 1)
        documents = splash.SegmentIds(_pad(queries, pad_q, 1), _pad(keys, pad_k, 1))

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

    y = _map_devices(kernel, q, k, v, documents)
    return y[:, :, :num_queries] if pad_q else y


def _pad(x: jax.Array, count: int, axis: int) -> jax.Array:
    """Append `count` zeros along an axis."""
    return jnp.pad(x, [(0, count if i == axis else 0) for i in range(x.ndim)]) if count else x


def _map_devices(
    kernel: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array, documents: Any
) -> jax.Array:
    """Run `kernel(q, k, v, documents)` on each device's rows and heads; `documents` holds [B, T] arrays or is None."""
    partitioner = partitioning.active()
    if partitioner is None or partitioner.mesh.size == 1:
        return kernel(q, k, v, documents)
    heads, rows = (partitioner.spec(axes) for axes in (('batch', 'heads', None, None), ('batch', None)))
    run = functools.partial(jax.shard_map, mesh=partitioner.mesh, out_specs=heads, check_vma=False)
    return run(kernel, in_specs=(heads, heads, heads, rows))(q, k, v, documents)


def _cudnn_unsupported(q: jax.Array, k: jax.Array, mask: AnyMask) -> str:
    """Return why cuDNN does not support these arguments and what to do, or ''."""
    capability = str(getattr(jax.devices()[0], 'compute_capability', '9.0'))  # that of an absent GPU
    version = (
        float(capability) if capability.replace('.', '').isdigit() else 0.0
    )  # ROCm has names such as gfx90a
    if q.dtype not in _HALF:
        return f'of model.dtype={q.dtype}. Set it to bfloat16'
    if version < 8:
        return f'cuDNN does not support GPUs of compute capability {capability}'
    if q.shape[2] == 1:
        return 'a single query needs no fused kernel'
    if q.shape[-1] % 8 or q.shape[-1] > (256 if version >= 9 else 128):
        return f'cuDNN does not support a head width of {q.shape[-1]}'
    if needs_bias(mask) and (q.shape[2] % 2 or k.shape[2] % 2):
        return 'cuDNN has no gradient of masked attention for odd lengths. Set data.length to an even number'
    return ''


def _pallas_unsupported(q: jax.Array, k: jax.Array, mask: AnyMask) -> str:
    """Return why the Pallas kernel of GPUs does not support these arguments, or ''."""
    is_masked_by_rows = mask is None or (isinstance(mask, Mask) and not mask.window)
    if is_masked_by_rows and q.shape[2] == k.shape[2] and q.shape[-1] >= 16:
        return _blocks_unsupported(q, k)
    return 'the Pallas kernel supports only self-attention without window and bias'


def _splash_unsupported(q: jax.Array, k: jax.Array, mask: AnyMask) -> str:
    """Return why splash attention does not support these arguments and what to do, or ''."""
    if not (mask is None or isinstance(mask, Mask)):
        return 'splash attention does not support a bias of the scores'
    if min(q.shape[2], k.shape[2]) >= _PADDED_LENGTH:
        return _split_unsupported(q, k)
    return _blocks_unsupported(q, k)


def _blocks_unsupported(q: jax.Array, k: jax.Array) -> str:
    """Return why a kernel that runs on each device in blocks of 128 tokens does not support these arguments, or ''."""
    if q.shape[2] % 128 or k.shape[2] % 128:
        return 'the fused kernel needs rows of a multiple of 128 tokens. Set data.length to one'
    return _split_unsupported(q, k)


def _split_unsupported(q: jax.Array, k: jax.Array) -> str:
    """Return why a kernel that runs on each device does not support these heads, or ''."""
    partitioner = partitioning.active()
    if partitioner is not None and partitioner.mesh.shape['tensor'] > 1 and q.shape[1] != k.shape[1]:
        return 'the fused kernel does not split grouped heads over the tensor axis. Set mesh.tensor=1'
    return ''
