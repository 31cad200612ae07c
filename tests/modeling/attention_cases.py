"""Masks of all kinds, and the comparison of an attention kernel with plain attention in float32."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.modeling import masks
from bert_jax.modeling.attention import attend
from bert_jax.modeling.masks import Mask

KINDS = (
    'none',
    'padding',
    'padding, grouped heads',
    'padding, few queries',
    'causal',
    'causal, padding',
    'window',
    'window, padding',
    'window, wide',
    'window, causal, padding',
    'packed',
    'packed, grouped heads',
    'packed, causal',
    'bias',
    'bias, packed',
)


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of an attention.

    Attributes:
      arrays: queries [B, N, Tq, H], keys and values [B, K, Tk, H] and, for kinds with a bias, the bias [1, N, Tq, Tk].
      mask: mask without the bias.
      is_real: [B, 1, Tq, 1] float32, zero for queries of padding.
    """

    arrays: list[jax.Array]
    mask: Mask | None
    is_real: jax.Array


def make_case(kind: str, dtype: Any, batch: int, heads: int, length: int, width: int) -> Case:
    """Make random inputs for one of `KINDS`; the first row is padding, unless no row has padding."""
    rng = np.random.default_rng(0)
    queries = 81 if 'few queries' in kind else length
    kv_heads = heads // 2 if 'grouped' in kind else heads
    shapes = (batch, heads, queries, width), *[(batch, kv_heads, length, width)] * 2
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    if 'bias' in kind:
        arrays.append(jnp.asarray(rng.normal(size=(1, heads, queries, length)), jnp.float32))
    documents: Any = np.ones((batch, length), bool)
    if 'padding' in kind:
        documents = np.arange(length) < np.linspace(0, length, batch)[:, None].astype(int)
    elif 'packed' in kind:
        documents = np.sort(rng.integers(1, 4, (batch, length)).astype(np.int32))
        documents[:, length - 9 :] = 0
        documents[0] = 0
    valid = jnp.asarray(documents)
    mask = masks.padding(valid) if 'padding' in kind or 'packed' in kind else Mask()
    window = (length // 3 if 'wide' in kind else 20) if 'window' in kind else 0
    mask = dataclasses.replace(mask, causal='causal' in kind, window=window)
    is_real = documents.astype(bool)
    if queries != length:
        is_real = np.broadcast_to(is_real.any(1, keepdims=True), (batch, queries))
    is_real = jnp.asarray(is_real[:, None, :, None], jnp.float32)
    return Case(arrays, None if kind == 'none' else mask, is_real)


@functools.partial(jax.jit, static_argnames=('implementation', 'in_float32'))
def run(
    arrays: list[jax.Array], mask: Any, is_real: jax.Array, implementation: Any, in_float32: bool = False
) -> list[jax.Array]:
    """Return the output for real queries and the gradients by all arrays, in float32; arguments as in `Case`.

    With `in_float32`, products are computed in full float32 precision, from the mask as an array.
    """

    def f(arrays: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        q, k, v, *bias = arrays
        allowed: Any = mask
        if isinstance(mask, Mask) and (in_float32 or bias):
            allowed = mask.to_array(q.shape[2], k.shape[2])
        if bias:
            allowed = bias[0] if allowed is None else jnp.where(allowed, bias[0], jnp.finfo(jnp.float32).min)
        y = attend(q, k, v, allowed, implementation=implementation).astype(jnp.float32) * is_real
        return jnp.sin(y).sum(), y

    with jax.default_matmul_precision('highest' if in_float32 else None):
        grads, y = jax.grad(f, has_aux=True)(arrays)
    return [y, *(g.astype(jnp.float32) for g in grads)]


def relative_errors(case: Case, implementation: str) -> list[float]:
    """Return the largest errors of output and gradients, each divided by the largest entry of the exact one."""
    found = run(case.arrays, case.mask, case.is_real, implementation)
    arrays = [x.astype(jnp.float32) for x in case.arrays]
    expected = run(arrays, case.mask, case.is_real, 'xla', in_float32=True)
    pairs = zip(found, expected, strict=True)
    return [float(jnp.abs(ours - exact).max() / jnp.abs(exact).max()) for ours, exact in pairs]
