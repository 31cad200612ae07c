"""The layers of a transformer block, whose variants are settings: encoders and decoders stand on them.

Activations are flat, [B*T, D], so that every product is one large matrix product; attention alone
moves heads in front, [B, N, T, H]. Parameters carry logical axis names (`axes=`), which are those
of `partitioning.LOGICAL`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core import partitioning
from bert_jax.core.partitioning import constrain
from bert_jax.modeling import cpu_decoding
from bert_jax.modeling.attention import attend
from bert_jax.modeling.config import Activation, BlockConfig, ModelConfig
from bert_jax.modeling.masks import Mask


def gelu(x: jax.Array) -> jax.Array:
    """The exact one (Hendrycks & Gimpel 2016), by erf as BERT has it: XLA computes erf in a third of the time of erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    'gelu': gelu,
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
}


# Keys and values of an attention, [B, K, S, H] each: S slots for tokens.
Cache = tuple[jax.Array, jax.Array]


class Read(NamedTuple):
    """What a cache holds of the text that is read, which tokens that are written leave as it is."""

    value: Any


def param(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float | None
) -> nnx.Param:
    """A float32 parameter: truncated normal of this deviation, zeros for 0, ones for None."""
    if std is None:
        return nnx.Param(jnp.ones(shape), axes=axes)
    if std == 0:
        return nnx.Param(jnp.zeros(shape), axes=axes)
    return nnx.Param(jax.nn.initializers.truncated_normal(std)(rngs.params(), shape), axes=axes)


def word_table(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Param:
    """[V, D] word embeddings, of the padded vocabulary."""
    return param(rngs, (config.padded_vocab, config.width), ('vocab', 'embed'), config.init_std)


def position_table(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Param | None:
    """[rows, D] learned positions; None where they are rotary or relative."""
    c = config
    if c.rotary or c.relative:
        return None
    return param(rngs, (c.first_position + c.positions, c.width), ('position', 'embed'), c.init_std)


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

    def __init__(
        self,
        config: BlockConfig,
        inputs: dict[str, int],
        outputs: dict[str, int],
        rngs: nnx.Rngs,
        residual: bool = False,
    ):
        """`inputs` and `outputs` map logical axes to sizes; an axis named '' is never split.

        `residual` says that its output is added to the residual stream.
        """
        axes = tuple(a or None for a in (*inputs, *outputs))
        self.features_in = functools.reduce(int.__mul__, inputs.values())
        small = residual and config.scale_residual
        std = config.init_std / math.sqrt(2 * config.layers) if small else config.init_std
        self.kernel = param(rngs, (*inputs.values(), *outputs.values()), axes, std)
        self.bias = param(rngs, tuple(outputs.values()), axes[len(inputs) :], 0) if config.bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(x.dtype).reshape(self.features_in, -1)
        y = _hold_gradient(cpu_decoding.product(x, kernel))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(-1)


@jax.custom_vjp
def _hold_gradient(y: jax.Array) -> jax.Array:
    """The identity, whose gradient is computed on its own before it is used.

    On a CPU, XLA otherwise fuses the transposition that the kernel's gradient needs with whatever made
    the gradient, element by element (see README, Speed). It rules out forward-mode differentiation.
    """
    return y


def _hold_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.optimization_barrier(gradient) if partitioning.platform() == 'cpu' else gradient,)


_hold_gradient.defvjp(lambda y: (y, None), _hold_backward)


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection for query, key and value.

    With `kv_heads` queries have a projection of their own.
    """

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        c = self.config = config
        heads = {'heads': c.heads, 'kv': c.width // c.heads}
        if c.kv_heads in (0, c.heads):
            self.qkv = Dense(c, {'embed': c.width}, {'': 3, **heads}, rngs)
        else:
            self.q = Dense(c, {'embed': c.width}, heads, rngs)
            self.kv = Dense(c, {'embed': c.width}, {'': 2, **heads, 'heads': c.kv_heads}, rngs)
        self.out = Dense(c, heads, {'embed': c.width}, rngs, residual=True)

    def __call__(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        at: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        q, k, v = self._project(x, positions)
        if at is not None:
            q = jnp.take_along_axis(q, at[:, None, :, None], axis=2)
            mask = mask.array(k.shape[2], k.shape[2]) if isinstance(mask, Mask) else mask
            if mask is not None and mask.shape[2] > 1:
                mask = jnp.broadcast_to(mask, (len(at), *mask.shape[1:]))
                mask = jnp.take_along_axis(mask, at[:, None, :, None], axis=2)
        x = attend(q, k, v, mask, implementation=c.attention, rate=c.attention_dropout, key=key)
        return self.out(x.transpose(0, 2, 1, 3).reshape(len(x) * x.shape[2], -1))

    def extend(
        self, x: jax.Array, mask: jax.Array, positions: jax.Array, cache: Cache, index: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """As a call on [B*t, D] tokens that go on from those in the cache, which gets theirs from slot `index` on."""
        q, *new = self._project(x, positions)
        at = (0, 0, index, 0)
        k, v = (
            jax.lax.dynamic_update_slice(a, b.astype(a.dtype), at) for a, b in zip(cache, new, strict=True)
        )
        y = cpu_decoding.attend(q, k, v, mask) if self.config.attention == 'auto' else None
        y = attend(q, k, v, mask, implementation=self.config.attention) if y is None else y
        return self.out(y.transpose(0, 2, 1, 3).reshape(len(x), -1)), (k, v)

    def _project(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B*T, D] to queries [B, N, T, H], keys and values [B, K, T, H]."""
        c, (batch, length) = self.config, positions.shape

        def heads(y: jax.Array, parts: int) -> list[jax.Array]:
            y = y.reshape(batch, length, parts, -1, c.width // c.heads).transpose(2, 0, 3, 1, 4)
            return [constrain(part, 'batch', 'heads', None, None) for part in y]

        if c.kv_heads in (0, c.heads):
            q, k, v = heads(self.qkv(x), 3)
        else:
            q, k, v = *heads(self.q(x), 1), *heads(self.kv(x), 2)
        if c.rotary:
            q, k = rotate(q, positions, c.rotary), rotate(k, positions, c.rotary)
        return q, k, v


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
        self.down = Dense(c, {'mlp': c.mlp}, {'embed': c.width}, rngs, residual=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        up = self.up(x)
        y = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        return self.down(constrain(y, 'batch', 'mlp'))
