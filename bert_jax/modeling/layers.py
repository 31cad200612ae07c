"""Layers of a transformer block, shared by encoders and decoders; settings select their variants.

Activations are flat, [B*T, D], so that each dense layer is one large matrix product; only attention
separates rows and heads, [B, N, T, H]. Parameters carry logical axis names (`axes=`) from
`partitioning.LOGICAL_AXES`. Biases and norm scales are of the types `module.Bias` and `module.NormScale`, so that
they are not decayed.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core import partitioning
from bert_jax.core.partitioning import constrain
from bert_jax.modeling import cpu_decoding
from bert_jax.modeling.attention import attend, unscaled
from bert_jax.modeling.config import Activation, ModelConfig
from bert_jax.modeling.masks import Mask, select_queries
from bert_jax.modeling.module import Bias, NormScale, Rngs
from bert_jax.modeling.rotary import rotate

# Keys and values of the cached tokens of an attention, [B, K, S, H] each, with S slots.
Cache = tuple[jax.Array, jax.Array]


class EncoderCache(NamedTuple):
    """Part of a decoder's cache that depends only on the source text; generated tokens do not change it.

    Attributes:
      keys_and_values: keys and values of the encoder outputs for the cross-attention of each layer.
      mask: mask of the encoder outputs.
    """

    keys_and_values: list[Cache]
    mask: Mask


def gelu(x: jax.Array) -> jax.Array:
    """Compute the exact GELU (Hendrycks & Gimpel 2016), with erf because XLA computes it three times as fast as erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    'gelu': gelu,
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
    'relu': jax.nn.relu,
    'relu_squared': lambda x: jnp.square(jax.nn.relu(x)),
    'silu': jax.nn.silu,
}


def param(rngs: Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float) -> nnx.Param:
    """Create a float32 parameter from a normal distribution of standard deviation `std`, truncated at twice that."""
    return nnx.Param(jax.nn.initializers.truncated_normal(std)(rngs.params(), shape), axes=axes)


def token_embedding(config: ModelConfig, rngs: Rngs) -> nnx.Param:
    """Create the token embedding [V, D] of the padded vocabulary; D is `config.token_width`."""
    return param(rngs, (config.padded_vocab, config.token_width), ('vocab', 'embed'), config.init_std)


class Norm(nnx.Module):
    """Layer norm or RMS norm over the last dimension, computed in float32."""

    def __init__(self, config: ModelConfig, rngs: Rngs, width: int = 0, is_rms: bool = False):
        """Create scale and bias; `width` is the size of the dimension, 0 that of the model."""
        width = width or config.width
        self.eps, self.is_rms = config.norm_eps, is_rms or config.norm_kind == 'rms'
        self.scale = NormScale(jnp.ones(width), axes=('embed',))
        has_bias = config.norm_bias and not self.is_rms
        self.bias = Bias(jnp.zeros(width), axes=('embed',)) if has_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        if not self.is_rms:
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps) * self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


class Dense(nnx.Module):
    """A dense layer over flat activations, [M, in] to [M, out].

    The kernel may have several input and output dimensions, such as heads and head width, so that each can
    be sharded; the matrix product itself is two-dimensional.
    """

    def __init__(
        self,
        config: ModelConfig,
        inputs: dict[str, int],
        outputs: dict[str, int],
        rngs: Rngs,
        residual: bool = False,
        use_bias: bool | None = None,
    ):
        """Create kernel and bias.

        Args:
          config: settings of the model.
          inputs: size of each input dimension by logical axis; an axis named '' is never sharded.
          outputs: size of each output dimension, likewise.
          rngs: random keys.
          residual: whether the output is added to the residual stream, see `zero_residual_init`.
          use_bias: whether there is a bias; None follows the config.
        """
        axes = tuple(a or None for a in (*inputs, *outputs))
        self.in_features = functools.reduce(int.__mul__, inputs.values())
        scaled = residual and config.scaled_residual_init
        std = config.init_std / math.sqrt(2 * config.layers) if scaled else config.init_std
        std = 0.0 if residual and config.zero_residual_init else std
        self.kernel = param(rngs, (*inputs.values(), *outputs.values()), axes, std)
        zeros = jnp.zeros(tuple(outputs.values()))
        has_bias = config.use_bias if use_bias is None else use_bias
        self.bias = Bias(zeros, axes=axes[len(inputs) :]) if has_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(x.dtype).reshape(self.in_features, -1)
        y = _barrier_gradient(cpu_decoding.matmul(x, kernel))
        if self.bias is None:
            return y
        # Added in float32, so that the bias gradient, a sum over all positions, is accumulated in float32.
        return (y.astype(jnp.float32) + self.bias[...].reshape(-1)).astype(x.dtype)


@jax.custom_vjp
def _barrier_gradient(y: jax.Array) -> jax.Array:
    """Return `y`; on CPUs, its gradient passes through an optimization barrier.

    The gradient of the kernel needs the incoming gradient transposed. Without the barrier, XLA fuses the
    transposition with the operations that produced the incoming gradient, which then run element by element.
    The custom gradient rules out forward-mode differentiation.
    """
    return y


def _barrier_gradient_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.optimization_barrier(gradient) if partitioning.target_platform() == 'cpu' else gradient,)


_barrier_gradient.defvjp(lambda y: (y, None), _barrier_gradient_backward)


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    With fewer `kv_heads` than heads the queries have a separate projection.
    """

    def __init__(self, config: ModelConfig, rngs: Rngs):
        c = self.config = config
        heads = {'heads': c.heads, 'kv': c.width_per_head}
        if c.kv_heads in (0, c.heads):
            self.qkv = Dense(c, {'embed': c.width}, {'': 3, **heads}, rngs)
        else:
            self.q = Dense(c, {'embed': c.width}, heads, rngs)
            self.kv = Dense(c, {'embed': c.width}, {'': 2, **heads, 'heads': c.kv_heads}, rngs)
        self.out = Dense(c, heads, {'embed': c.width}, rngs, residual=True)
        if c.qk_norm:
            self.q_norm, self.k_norm = (Norm(c, rngs, c.width_per_head, is_rms=True) for _ in range(2))

    def __call__(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        output_positions: jax.Array | None = None,
    ) -> jax.Array:
        """Map activations [B*T, D] to [B*T, D], or [B*P, D] with `output_positions`; arguments as in `Stack`."""
        c = self.config
        q, k, v = self._project(x, positions)
        if c.window:
            mask = dataclasses.replace(mask if isinstance(mask, Mask) else Mask(), window=c.window)
        if output_positions is not None:
            q = jnp.take_along_axis(q, output_positions[:, None, :, None], axis=2)
            mask = select_queries(mask, output_positions, k.shape[2])
        implementation, rate = c.attention_implementation, c.attention_dropout
        y = attend(q, k, v, mask, implementation=implementation, dropout_rate=rate, key=key)
        return self.out(merge_heads(y))

    def extend(
        self, x: jax.Array, mask: jax.Array, positions: jax.Array, cache: Cache, index: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Compute attention of new tokens [B*t, D] to the cache, after storing them from slot `index` on."""
        q, *new = self._project(x, positions)
        k, v = (
            jax.lax.dynamic_update_slice(old, update.astype(old.dtype), (0, 0, index, 0))
            for old, update in zip(cache, new, strict=True)
        )
        if self.config.window:
            distance = jnp.arange(mask.shape[-1]) - (index + jnp.arange(mask.shape[2]))[:, None]
            mask &= jnp.abs(distance) <= self.config.window
        implementation = self.config.attention_implementation
        y = cpu_decoding.attend(q, k, v, mask) if implementation == 'auto' else None
        if y is None:
            y = attend(q, k, v, mask, implementation=implementation)
        return self.out(merge_heads(y)), (k, v)

    def _project(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project [B*T, D] to queries [B, N, T, H] and keys and values [B, K, T, H], rotated if configured."""
        c, batch = self.config, positions.shape[0]
        if c.kv_heads in (0, c.heads):
            q, k, v = split_heads(self.qkv(x), 3, batch, c)
        else:
            q, k, v = *split_heads(self.q(x), 1, batch, c), *split_heads(self.kv(x), 2, batch, c)
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if c.rope_base:
            q, k = rotate(q, positions, c.rope_base), rotate(k, positions, c.rope_base)
        return (q if c.scale_attention else unscaled(q)), k, v


def split_heads(y: jax.Array, parts: int, batch: int, config: ModelConfig) -> list[jax.Array]:
    """Split activations [B*T, parts * N * H] of B rows into `parts` arrays [B, N, T, H]."""
    y = y.reshape(batch, y.shape[0] // batch, parts, -1, config.width_per_head)
    return [constrain(part, 'batch', 'heads', None, None) for part in y.transpose(2, 0, 3, 1, 4)]


def merge_heads(y: jax.Array) -> jax.Array:
    """Merge the heads [B, N, T, H] of an attention to activations [B*T, N * H]."""
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0] * y.shape[2], -1)


class FeedForward(nnx.Module):
    """Two dense layers with an activation between them, optionally gated."""

    def __init__(self, config: ModelConfig, rngs: Rngs):
        c = config
        self.activation = ACTIVATIONS[c.activation]
        self.is_gated = c.gated_mlp
        projections = {'': 2} if c.gated_mlp else {}  # the one that is activated, and its factors
        self.up = Dense(c, {'embed': c.width}, {**projections, 'mlp': c.mlp_width}, rngs)
        self.down = Dense(c, {'mlp': c.mlp_width}, {'embed': c.width}, rngs, residual=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.up(x)
        if self.is_gated:
            gate, factors = jnp.split(y, 2, axis=-1)
            y = self.activation(gate) * factors
        else:
            y = self.activation(y)
        return self.down(constrain(y, 'batch', 'mlp'))
