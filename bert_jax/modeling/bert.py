"""BERT (Devlin et al. 2019, arXiv 1810.04805): a bidirectional transformer encoder."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import within
from bert_jax.modeling import masks
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.layers import Dense, Norm, param, position_table, word_table
from bert_jax.modeling.stack import Stack

# Layers, width, heads, feed-forward: section 3 of the paper for base and large, the miniatures of
# Turc et al. 2019 (arXiv 1908.08962) for the rest.
SIZES = {
    'tiny': (2, 128, 2, 512),
    'mini': (4, 256, 4, 1024),
    'small': (4, 512, 8, 2048),
    'medium': (8, 512, 8, 2048),
    'base': (12, 768, 12, 3072),
    'large': (24, 1024, 16, 4096),
}


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """A BERT; see `BlockConfig` for the shape of its blocks.

    Attributes:
      size: a name in `SIZES`; it fills in width, heads, mlp and layers where they are 0.
      segments: learned segment vectors; 0 is none, and 1 is the same for both texts.
      pooler: activation of the pooled vector; 'relu' is DistilBERT's.
    """

    size: str = 'base'
    segments: int = 2
    pooler: Literal['tanh', 'relu'] = 'tanh'

    def __post_init__(self) -> None:
        self._take_size(SIZES, self.size, 'layers', 'width', 'heads', 'mlp')
        within(self, 'model', 0, math.inf, 'segments')
        super().__post_init__()


class Output(NamedTuple):
    """What an encoder returns.

    Attributes:
      hidden_states: L+1 arrays [B, T, D]: the embeddings, then the output of each layer; the last
        is [B, 1+P, D] where only P positions beside the first were wanted of it.
      pooled: [B, D], tanh of a dense layer over the first position; None without a pooler.
    """

    hidden_states: tuple[jax.Array, ...]
    pooled: Any


class Bert(nnx.Module):
    """The encoder: embeddings, blocks and, for heads over the whole row, a pooler."""

    def __init__(self, config: Config, rngs: nnx.Rngs, pooler: bool = True):
        c = self.config = config
        self.words = word_table(c, rngs)
        self.positions = position_table(c, rngs)
        kinds = (c.segments, c.width), (None, 'embed')
        self.segments = param(rngs, *kinds, c.init_std) if c.segments else None
        self.norm = Norm(c, rngs)
        self.layers = Stack(c, rngs)
        self.pooler = Dense(c, {'embed': c.width}, {'': c.width}, rngs) if pooler else None

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> Output:
        """Encodes a batch.

        Args:
          tokens: [B, T] ids.
          segments: [B, T], 0 for the first text and 1 for the second; None is all 0.
          valid: [B, T] booleans, false on padding (see `masks.padding`); None is all true.
          key: randomness of dropout; None is evaluation.
          at: [B, P], the only positions beside the first where the last layer's output is wanted,
            which saves most of that layer; None is everywhere.

        Raises:
          UserError: if a row is longer than the learned positions.
        """
        c, (batch, length) = self.config, tokens.shape
        c.check_length(length)
        dtype = jnp.dtype(c.dtype)
        x = self.words[...][tokens]
        if self.segments is not None:
            kinds = jnp.zeros_like(tokens) if segments is None else jnp.minimum(segments, c.segments - 1)
            x = x + self.segments[...][kinds]
        if self.positions is not None:
            x = x + self.positions[...][c.first_position :][:length]
        x = dropout(self.norm(x.astype(dtype)), c.dropout, fold(key, 0)).reshape(batch * length, c.width)
        mask = None if valid is None else masks.padding(valid)
        positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        if at is not None:
            at = jnp.pad(at, ((0, 0), (1, 0)))
        outputs = self.layers(x, mask, positions, fold(key, 1), at)
        hidden = tuple(h.reshape(batch, -1, c.width) for h in (x, *outputs))
        if self.pooler is None:
            return Output(hidden, None)
        return Output(hidden, _POOLERS[c.pooler](self.pooler(hidden[-1][:, 0])))


_POOLERS = {'tanh': jnp.tanh, 'relu': jax.nn.relu}
