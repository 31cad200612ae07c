"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), by the fastest kernel of each device."""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp

from bert_jax.core import partitioning
from bert_jax.modeling import attention_kernels as kernels
from bert_jax.modeling import local_attention
from bert_jax.modeling.attention_kernels import Implementation
from bert_jax.modeling.dropout import dropout
from bert_jax.modeling.masks import Mask

# Number of queries and keys from which on it matters that an accelerator stores all scores.
_LONG = 512
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

    With `implementation='auto'` and no dropout, TPUs use splash attention for masks by document and lengths that are
    multiples of 128 or at least 512. NVIDIA GPUs of compute capability 8 or higher use cuDNN in half precision. It gets the lengths of
    the rows if the mask says no more than padding and causality, and otherwise reads the mask as an array, which needs
    even lengths. Everything else uses XLA. A mask with a window is computed block by block (`local_attention`), unless
    the row is hardly longer than the window or the kernel supports the window.

    If an accelerator stores scores or a mask of 512 x 512 numbers or more per row, the log says why, once per reason.

    Args:
      q: [B, N, Tq, H] queries.
      k: [B, K, Tk, H] keys; each of the K heads serves N / K consecutive query heads.
      v: [B, K, Tk, H] values.
      mask: a `Mask`; or an array broadcastable to [B, N, Tq, Tk], booleans that are true where attention is
        allowed or float32 numbers added to the scores; or None.
      implementation: kernel to use where it applies, and otherwise 'auto'; 'pallas' is JAX's Pallas attention for GPUs,
        which reads the documents of packed rows instead of an array.
      dropout_rate: dropout rate of attention probabilities, which only XLA supports.
      key: random key of dropout; None disables dropout.

    Returns:
      [B, N, Tq, H] in the dtype of `q`; the softmax is computed in float32. Outputs of padding queries have no meaning
      but are finite.
    """
    has_dropout = key is not None and dropout_rate > 0
    if records_weights():  # the other kernels do not return them
        kernel, reason = 'xla', 'attention weights are recorded'
    elif has_dropout:
        kernel, reason = 'xla', f'of model.attention_dropout={dropout_rate}. Set it to 0'
    else:
        kernel, reason = kernels.choose(implementation, q, k, mask)
    if kernel == 'splash':
        return kernels.splash(q, k, v, mask)
    if kernel == 'pallas':
        return kernels.pallas(q, k, v, mask)
    if kernel == 'cudnn' and not kernels.needs_bias(mask):
        return kernels.cudnn(q, k, v, mask)
    if isinstance(mask, Mask) and not records_weights() and local_attention.saves_work(mask, k.shape[2]):
        return local_attention.attend(q, k, v, mask, dropout_rate, key)
    if partitioning.target_platform() != 'cpu' and q.shape[2] * k.shape[2] >= _LONG**2:
        stored = _describe_bias(mask) if kernel == 'cudnn' else f'all scores, [B, N, T, T], because {reason}'
        _log_once(stored)
    if isinstance(mask, Mask):
        mask = mask.to_array(q.shape[2], k.shape[2])
    if kernel == 'cudnn':
        return kernels.cudnn(q, k, v, mask)
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


def unscaled(q: jax.Array) -> jax.Array:
    """Multiply queries [B, N, T, H] by the root of H, so that the scores are not scaled: `attend` divides by it."""
    return q * q.shape[-1] ** 0.5


def _describe_bias(mask: Mask | jax.Array | None) -> str:
    """Describe the array that cuDNN reads for a mask that is not only lengths, and what to do."""
    if not isinstance(mask, Mask):
        return 'a bias of the scores, [B, N, T, T], because cuDNN reads relative positions from an array'
    if mask.query_documents is None:
        return 'a mask, [B, 1, T, T], because cuDNN has no window in both directions. Lower model.window'
    return (
        'a mask, [B, 1, T, T], because cuDNN reads packed rows from an array. '
        'Compare the speed of model.attention_implementation=pallas'
    )


@functools.cache
def _log_once(message: str) -> None:
    """Log what attention over long rows stores; each message is logged once in a process."""
    logging.info('Attention over rows of %d tokens or more stores %s.', _LONG, message)
