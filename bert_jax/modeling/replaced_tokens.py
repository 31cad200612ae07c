"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): a discriminator that detects the tokens that a generator has replaced."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import bert, module
from bert_jax.modeling.bert import Bert, BertForPretraining
from bert_jax.modeling.heads import Output, head_logits
from bert_jax.modeling.layers import ACTIVATIONS, Dense

Sharing = Literal['shared', 'disentangled', 'none']
# Attributes of `Bert` with the embeddings that generator and discriminator share.
_SHARED = ('token_embedding', 'position_embedding')
_BLOCK = 128  # number of probabilities that are added up before they are searched


def generator_config(config: bert.Config, size: float, layers: int, sharing: Sharing) -> bert.Config:
    """Return the settings of the generator.

    Args:
      config: settings of the discriminator.
      size: width, number of heads and feed-forward width, as a share of those of the discriminator. They are rounded so
        that the heads divide the width.
      layers: number of layers; 0 is that of the discriminator.
      sharing: see `ReplacedTokenDetection`. Shared embeddings have the width of those of the discriminator, and a dense
        layer projects them to the width of the generator.
    """
    heads = max(1, round(config.heads * size))
    unit = 2 * heads if config.rope_base else heads  # rotary positions need an even head width
    width = unit * max(1, round(config.width * size / unit))
    layers = layers or config.layers
    return dataclasses.replace(
        config,
        width=width,
        heads=heads,
        kv_heads=math.gcd(heads, config.kv_heads) if config.kv_heads else 0,
        mlp_width=max(1, round(config.mlp_width * size)),
        layers=layers,
        layer_groups=min(config.layer_groups, layers),
        embedding_width=0 if sharing == 'none' or config.token_width == width else config.token_width,
    )


class OffsetEmbedding(nnx.Module):
    """An embedding that is the sum of the generator's and of an offset, and whose gradient updates only the offset.

    This is gradient-disentangled embedding sharing (He et al. 2021, arXiv 2111.09543, section 3). It is indexed like
    the parameter in whose place it stands.

    Attributes:
      base: embedding of the generator.
      delta: offset of the same shape, zero at first.
    """

    def __init__(self, base: nnx.Param):
        self.base = base
        self.delta = nnx.Param(jnp.zeros_like(base[...]), axes=base.get_metadata('axes'))

    def __getitem__(self, index: Any) -> jax.Array:
        return (jax.lax.stop_gradient(self.base[...]) + self.delta[...])[index]


class Detector(nnx.Module):
    """Head that maps the last hidden state of each token to the log-odds that the token was replaced (section 2)."""

    def __init__(self, config: bert.Config, rngs: module.Rngs):
        inputs = {'embed': config.width}
        self.activation = ACTIVATIONS[config.activation]
        self.dense = Dense(config, inputs, {'': config.width}, rngs, use_bias=True)
        self.classifier = Dense(config, inputs, {'': 1}, rngs, use_bias=True)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states [B, T, D] to logits [B, T], float32."""
        features = self.activation(self.dense(hidden.reshape(-1, hidden.shape[-1])))
        return head_logits(self.classifier, features.reshape(hidden.shape))[..., 0]


class ReplacedTokenDetection(nnx.Module):
    """A generator, which is a masked language model, and a discriminator, which is the pretrained encoder.

    Token and position embeddings are either the same parameters in both ('shared', section 3.2 of the paper), or those of
    the discriminator have an offset ('disentangled', see `OffsetEmbedding`), or both have their own ('none'). Segment
    embeddings and norms are never shared.

    Attributes:
      bert: encoder of the discriminator.
      detector: head of the discriminator.
      generator: the generator, whose `bert` is narrower.
    """

    def __init__(self, config: bert.Config, generator: bert.Config, sharing: Sharing, rngs: module.Rngs):
        self.bert = Bert(config, rngs, pooler=False)
        self.detector = Detector(config, rngs)
        self.generator = BertForPretraining(generator, rngs, next_sentence=False)
        for name in _SHARED if sharing != 'none' else ():
            embedding = getattr(self.bert, name)
            if embedding is not None:
                setattr(self.generator.bert, name, embedding)
                if sharing == 'disentangled':
                    setattr(self.bert, name, OffsetEmbedding(embedding))

    def __call__(self, *args: Any, **kwargs: Any) -> Output:
        """Run the discriminator; arguments as in `Bert`. The logits [B, T] are positive for tokens that seem replaced."""
        out = self.bert(*args, **kwargs)
        return out._replace(logits=self.detector(out.hidden_states[-1]))

    def part(self, name: str) -> nnx.Module:
        """Return the 'generator', or a copy of the 'discriminator' that has its own embeddings."""
        if name == 'generator':
            return self.generator
        copy = module.merge(*module.split(self))
        copy.generator = None
        for table in _SHARED:
            if isinstance(embedding := getattr(copy.bert, table), OffsetEmbedding):
                setattr(copy.bert, table, nnx.Param(embedding[...], axes=embedding.base.get_metadata('axes')))
        return copy


def sample_tokens(logits: jax.Array, noise: jax.Array) -> jax.Array:
    """Sample from the softmax by inversion of its cumulative distribution, which needs one random number per sample.

    The probabilities are added up in blocks. The sums of the blocks are searched first, then one block, since a cumulative
    sum over the whole vocabulary is slow on all devices.

    Args:
      logits: [..., V].
      noise: [...] independent numbers, uniform in [0, 1).

    Returns:
      [...] int32 token ids, without a gradient.
    """
    size = logits.shape[-1]
    logits = jax.lax.stop_gradient(logits).astype(jnp.float32)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    weights = jnp.pad(weights, [(0, 0)] * (logits.ndim - 1) + [(0, -size % _BLOCK)])
    blocks = weights.reshape(*weights.shape[:-1], -1, _BLOCK)
    bounds = jnp.cumsum(blocks.sum(-1), -1)
    target = noise[..., None] * bounds[..., -1:]
    block = _count_up_to(bounds, target)
    before = jnp.take_along_axis(jnp.pad(bounds, [(0, 0)] * noise.ndim + [(1, 0)]), block, axis=-1)
    within = jnp.cumsum(jnp.take_along_axis(blocks, block[..., None], axis=-2)[..., 0, :], -1)
    token = _BLOCK * block + _count_up_to(within, target - before)
    return jnp.minimum(token[..., 0], size - 1)


def _count_up_to(bounds: jax.Array, target: jax.Array) -> jax.Array:
    """Return the index [..., 1] of the first of the ascending `bounds` [..., n] above `target` [..., 1], at most n - 1."""
    count = (bounds <= target).sum(-1, keepdims=True, dtype=jnp.int32)
    return jnp.minimum(count, bounds.shape[-1] - 1)
