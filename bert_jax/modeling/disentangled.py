"""Disentangled attention of contents and relative positions (DeBERTa, He et al. 2021, arXiv 2006.03654, section 3.1)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import constrain
from bert_jax.modeling.attention import attend
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.layers import Attention, Norm, merge_heads, param
from bert_jax.modeling.masks import Mask, select_queries
from bert_jax.modeling.module import Rngs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PositionedMask:
    """An attention mask, and the embeddings of relative positions that all layers share.

    Attributes:
      mask: attention mask, see `attention.attend`.
      embeddings: [2 k, D] normalized embeddings of the buckets, see `bucket_indices`.
    """

    mask: Mask | jax.Array | None
    embeddings: jax.Array


def bucket_indices(buckets: int, max_distance: int) -> np.ndarray:
    """Map distances, query position minus key position, to rows of the embeddings.

    Distances up to k / 2 in either direction have their own row. The others share rows for ranges that have equal width in
    the logarithm of the distance, which is rounded up, as in the code of the authors (DeBERTa v2 and v3).

    Args:
      buckets: number of buckets in each direction, k.
      max_distance: distance M in tokens; this and all larger distances share the last bucket.

    Returns:
      [2 M + 1] integers from 0 to 2 k - 1 in ascending order, for the distances from -M to M.
    """
    distance = np.arange(-max_distance, max_distance + 1)
    exact = buckets // 2
    size = np.maximum(np.abs(distance), exact).astype(np.float32)
    # In float32, as in PyTorch: rounding decides in which bucket the distance M - 1 is.
    ratio = np.log(size / np.float32(exact)) / np.log(np.float32((max_distance - 1) / exact))
    log_bucket = np.ceil(ratio * np.float32(exact - 1)).astype(np.int64) + exact
    bucket = np.where(np.abs(distance) <= exact, distance, np.sign(distance) * log_bucket)
    return np.clip(bucket + buckets, 0, 2 * buckets - 1)


def _used_rows(config: ModelConfig, length: Any) -> range:
    """Return the rows of the embeddings that rows of `length` tokens use; all if the length is a symbol of an export."""
    indices = bucket_indices(config.disentangled_buckets, config.relative_max_distance)
    farthest = len(indices) // 2
    if isinstance(length, int | float):
        farthest = min(farthest, math.ceil(length) - 1)
    middle = len(indices) // 2
    return range(indices[middle - farthest], indices[middle + farthest] + 1)


class PositionEmbeddings(nnx.Module):
    """Embeddings of relative positions, [2 k, D] after their norm."""

    def __init__(self, config: ModelConfig, causal: bool, rngs: Rngs):
        _check(config, causal)
        shape = (2 * config.disentangled_buckets, config.width)
        self.config = config
        self.table = param(rngs, shape, (None, 'embed'), config.init_std)
        self.norm = Norm(config, rngs)

    def __call__(self, mask: Mask | jax.Array | None) -> PositionedMask:
        """Join the mask of a stack with the embeddings."""
        return PositionedMask(mask, self.norm(self.table[...].astype(self.config.dtype)))


def _check(config: ModelConfig, causal: bool) -> None:
    """Raise a `UserError` for settings that disentangled attention does not support."""
    c = config
    setting = f'model.disentangled_buckets={c.disentangled_buckets}'
    if causal:
        raise UserError(f'{setting} supports only bidirectional encoders. Set it to 0, or model.name=bert.')
    if c.disentangled_buckets % 2 or not 4 <= c.disentangled_buckets < 2 * c.relative_max_distance - 2:
        raise UserError(
            f'{setting} must be 0, or an even number of at least 4 and below 2 * model.relative_max_distance - 2 = '
            f'{2 * c.relative_max_distance - 2}.'
        )
    others = {'window': 0, 'rope_base': 0.0, 'relative_buckets': 0, 'scale_attention': True}
    if c.kv_heads != c.heads:
        others['kv_heads'] = 0
    if wrong := next((name for name, value in others.items() if getattr(c, name) != value), None):
        value = str(others[wrong]).lower()
        raise UserError(
            f'{setting} does not support model.{wrong}={getattr(c, wrong)}. Set model.{wrong}={value}.'
        )


class DisentangledAttention(Attention):
    """Self-attention whose scores also depend on relative positions.

    With queries Q and keys K of the contents, the queries Q' and keys K' that the same layers make of the embeddings of
    relative positions, and the bucket d(i, j) of the distance i - j, the scores (equation 4) are

        (Q_i K_j + Q_i K'_d(i, j) + K_j Q'_d(i, j)) / sqrt(3 H).

    In the last term, the equation in the paper has d(j, i), and the code of the authors d(i, j), as here.
    """

    def __call__(
        self,
        x: jax.Array,
        mask: Any,
        positions: jax.Array,
        key: jax.Array | None,
        output_positions: jax.Array | None = None,
    ) -> jax.Array:
        """Map activations as `Attention` does; `mask` is a `PositionedMask`."""
        c, length = self.config, positions.shape[1]
        q, k, v = self._project(x, positions)
        rows = _used_rows(c, length)
        embeddings = dropout(mask.embeddings[rows.start : rows.stop], c.dropout, fold_in(key, 1), ())
        position_q, position_k = self._project_positions(embeddings)

        queries = jnp.arange(length)[None] if output_positions is None else output_positions  # [1 or B, P]
        farthest = c.relative_max_distance
        distance = jnp.clip(queries[:, None, :, None] - jnp.arange(length), -farthest, farthest)
        indices = bucket_indices(c.disentangled_buckets, farthest) - rows.start
        index = jnp.asarray(indices)[distance + farthest]  # [1 or B, 1, P, T]
        if output_positions is not None:
            q = jnp.take_along_axis(q, output_positions[:, None, :, None], axis=2)
        scale = 1 / math.sqrt(3 * q.shape[-1])
        to_position = _scores(q * scale, position_k)  # [B, N, P, R]
        from_position = _scores(k * scale, position_q).swapaxes(2, 3)  # [B, N, R, T]
        bias = jnp.take_along_axis(to_position, index, axis=3)
        bias += jnp.take_along_axis(from_position, index, axis=2)

        allowed = (
            mask.mask if output_positions is None else select_queries(mask.mask, output_positions, length)
        )
        if isinstance(allowed, Mask):
            allowed = allowed.to_array(bias.shape[2], length)
        if allowed is not None:
            bias = jnp.where(allowed, bias, jnp.finfo(jnp.float32).min)
        implementation, rate = c.attention_implementation, c.attention_dropout
        # Attention divides the product of contents by sqrt(H).
        y = attend(
            q / math.sqrt(3),
            k,
            v,
            bias,
            implementation=implementation,
            dropout_rate=rate,
            key=fold_in(key, 0),
        )
        return self.out(merge_heads(y))

    def _project_positions(self, embeddings: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Project embeddings [R, D] of relative positions to queries and keys [N, R, H]."""
        c = self.config
        kernel = self.qkv.kernel[...][:, :2].astype(embeddings.dtype).reshape(c.width, -1)
        y = embeddings @ kernel
        if self.qkv.bias is not None:
            y = (y.astype(jnp.float32) + self.qkv.bias[...][:2].reshape(-1)).astype(y.dtype)
        q, k = y.reshape(len(y), 2, c.heads, -1).transpose(1, 2, 0, 3)
        return constrain(q, 'heads', None, None), constrain(k, 'heads', None, None)


def _scores(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Multiply [B, N, T, H] by [N, R, H], giving [B, N, T, R] in float32."""
    return jnp.einsum('bnth,nrh->bntr', x, positions, preferred_element_type=jnp.float32)


def flops(config: ModelConfig, tokens: float, length: float, output_tokens: float | None) -> float:
    """Count the floating-point operations that disentangled attention adds; arguments as in `ModelConfig.block_flops`."""
    if not config.disentangled_buckets:
        return 0.0
    rows, inner_width = len(_used_rows(config, length)), config.heads * config.width_per_head
    projections = config.layers * rows * 4 * config.width * inner_width
    queries = (
        config.layers * tokens if output_tokens is None else (config.layers - 1) * tokens + output_tokens
    )
    return projections + 2 * rows * inner_width * (queries + config.layers * tokens)
