"""One transformer block, whose variants are settings: the encoder and decoders stand on it.

Activations are flat, [B*T, D], so that every product is one large matrix product; attention alone
moves heads in front, [B, N, T, H]. Parameters carry logical axis names (`axes=`), which are those
of `partitioning.LOGICAL`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import constrain
from bert_jax.modeling.attention import Implementation, attend
from bert_jax.modeling.dropout import dropout, fold

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'gelu': functools.partial(jax.nn.gelu, approximate=False),
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
}


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Shape and choices of a stack of transformer blocks; the defaults are BERT's.

    Attributes:
      width: D, model width.
      heads: N; width must divide by it.
      mlp: F, feed-forward width.
      layers: L.
      norm: 'post' normalises after the residual sum (Vaswani et al. 2017), 'pre' before each
        sublayer, with one more norm at the end (Xiong et al. 2020).
      norm_kind: layer norm (Ba et al. 2016) or RMS norm (Zhang & Sennrich 2019).
      norm_eps: added to the variance.
      bias: whether dense layers have a bias.
      activation: of the feed-forward layer; 'gelu' is the exact one, by erf.
      gated: multiply the activation by a second projection (Shazeer 2020, GLU variants).
      rotary: rotate queries and keys by position (Su et al. 2021) with this base; 0 is off.
      dropout: of embeddings and of each sublayer's output.
      attention_dropout: of attention probabilities.
      init_std: parameters are drawn from a normal truncated at two of these.
      dtype: of computation; parameters, softmax and losses stay float32.
      attention: how attention is computed, see `attention.attend`.
      scan: run the layers as one loop, which compiles faster.
      remat: what the backward pass computes again: nothing, all of a block but its matrix
        products ('dots'), or the whole block ('full').
    """

    width: int = 0
    heads: int = 0
    mlp: int = 0
    layers: int = 0
    norm: Literal['post', 'pre'] = 'post'
    norm_kind: Literal['layer', 'rms'] = 'layer'
    norm_eps: float = 1e-12
    bias: bool = True
    activation: Literal['gelu', 'gelu_tanh', 'relu', 'silu'] = 'gelu'
    gated: bool = False
    rotary: float = 0.0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    attention: Implementation = 'auto'
    scan: bool = False
    remat: Literal['none', 'dots', 'full'] = 'none'

    def __post_init__(self) -> None:
        within(self, 'model', 1, math.inf, 'width', 'heads', 'mlp', 'layers')
        within(self, 'model', 0, math.inf, 'norm_eps', 'rotary', 'init_std')
        within(self, 'model', 0, 0.99, 'dropout', 'attention_dropout')
        if self.width % self.heads:
            raise UserError(f'model.width={self.width} does not divide by model.heads={self.heads}.')
        if self.rotary and self.width // self.heads % 2:
            raise UserError(
                'model.rotary turns pairs, so the width of a head, model.width / model.heads, must be even.'
            )


def param(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float | None
) -> nnx.Param:
    """A float32 parameter: truncated normal of this deviation, zeros for 0, ones for None."""
    if std is None:
        return nnx.Param(jnp.ones(shape), axes=axes)
    if std == 0:
        return nnx.Param(jnp.zeros(shape), axes=axes)
    return nnx.Param(jax.nn.initializers.truncated_normal(std)(rngs.params(), shape), axes=axes)


class Norm(nnx.Module):
    """Layer norm or RMS norm over the last dimension, computed in float32."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        self.eps, self.rms = config.norm_eps, config.norm_kind == 'rms'
        self.scale = param(rngs, (config.width,), ('embed',), None)
        self.bias = None if self.rms else param(rngs, (config.width,), ('embed',), 0)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        if not self.rms:
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps) * self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


class Dense(nnx.Module):
    """A matrix product over flat activations, [M, in] to [M, out].

    The kernel may have several dimensions on each side (heads, say), so that they shard; the
    product itself is two-dimensional.
    """

    def __init__(self, config: BlockConfig, inputs: dict[str, int], outputs: dict[str, int], rngs: nnx.Rngs):
        """`inputs` and `outputs` map logical axes to sizes; an axis named '' is never split."""
        axes = tuple(a or None for a in (*inputs, *outputs))
        self.features_in = functools.reduce(int.__mul__, inputs.values())
        self.kernel = param(rngs, (*inputs.values(), *outputs.values()), axes, config.init_std)
        self.bias = param(rngs, tuple(outputs.values()), axes[len(inputs) :], 0) if config.bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = _hold_gradient(x @ self.kernel[...].astype(x.dtype).reshape(self.features_in, -1))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(-1)


@jax.custom_vjp
def _hold_gradient(y: jax.Array) -> jax.Array:
    """The identity, whose gradient is computed on its own before it is used.

    On a CPU, XLA otherwise fuses the transposition that the kernel's gradient needs with whatever made
    the gradient, element by element (see README, Speed). It rules out forward-mode differentiation.
    """
    return y


def _hold_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.optimization_barrier(gradient) if jax.default_backend() == 'cpu' else gradient,)


_hold_gradient.defvjp(lambda y: (y, None), _hold_backward)


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection for query, key and value."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        c = self.config = config
        heads = {'heads': c.heads, 'kv': c.width // c.heads}
        self.qkv = Dense(c, {'embed': c.width}, {'': 3, **heads}, rngs)
        self.out = Dense(c, heads, {'embed': c.width}, rngs)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        at: jax.Array | None = None,
    ) -> jax.Array:
        c, (batch, length) = self.config, positions.shape
        x = self.qkv(x).reshape(batch, length, 3, c.heads, -1)
        q, k, v = (constrain(a, 'batch', 'heads', None, None) for a in x.transpose(2, 0, 3, 1, 4))
        if c.rotary:
            q, k = rotate(q, positions, c.rotary), rotate(k, positions, c.rotary)
        if at is not None:
            q = jnp.take_along_axis(q, at[:, None, :, None], axis=2)
        x = attend(q, k, v, mask, implementation=c.attention, rate=c.attention_dropout, key=key)
        return self.out(x.transpose(0, 2, 1, 3).reshape(batch * q.shape[2], -1))


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary position embedding (Su et al. 2021, section 3.2.2), halves as pairs: [B, N, T, H]."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, :, None].astype(jnp.float32) * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


class FeedForward(nnx.Module):
    """Two dense layers with an activation between, gated if so configured."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        c = config
        self.activation = ACTIVATIONS[c.activation]
        self.up = Dense(c, {'embed': c.width}, {'mlp': c.mlp}, rngs)
        self.gate = Dense(c, {'embed': c.width}, {'mlp': c.mlp}, rngs) if c.gated else None
        self.down = Dense(c, {'mlp': c.mlp}, {'embed': c.width}, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        up = self.up(x)
        y = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        return self.down(constrain(y, 'batch', 'mlp'))


class Block(nnx.Module):
    """Self-attention and feed-forward, each with its residual, norm and dropout."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        self.config = config
        self.attention = Attention(config, rngs)
        self.attention_norm = Norm(config, rngs)
        self.mlp = FeedForward(config, rngs)
        self.mlp_norm = Norm(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        at: jax.Array | None = None,
    ) -> jax.Array:
        """Runs flat activations [B*T, D] through the block.

        Args:
          x, mask, positions, key: see `Stack`.
          at: [B, P]; every position is attended to, but only these go on. None is all.

        Returns:
          [B*P, D], or [B*T, D] without `at`.
        """
        rate, pre = self.config.dropout, self.config.norm == 'pre'
        y = self.attention(self.attention_norm(x) if pre else x, mask, positions, fold(key, 0), at)
        if at is not None:
            rows = x.reshape(len(at), -1, x.shape[-1])
            x = jnp.take_along_axis(rows, at[..., None], axis=1).reshape(y.shape)
        x = x + dropout(y, rate, fold(key, 1))
        x = x if pre else self.attention_norm(x)
        y = self.mlp(self.mlp_norm(x) if pre else x)
        x = x + dropout(y, rate, fold(key, 2))
        return constrain(x if pre else self.mlp_norm(x), 'batch', None)
