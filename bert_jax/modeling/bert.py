"""BERT (Devlin et al. 2019, arXiv 1810.04805): a bidirectional transformer encoder."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.errors import UserError
from bert_jax.modeling import masks
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.layers import BlockConfig, Dense, Norm, param
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
class Config(BlockConfig):
    """A BERT; see `BlockConfig` for the shape of its blocks.

    Attributes:
      size: a name in `SIZES`; it fills in width, heads, mlp and layers where they are 0.
      vocab_size: V, entries of the tokenizer; 0 takes the tokenizer's own size.
      positions: learned positions, the longest row.
      segments: learned segment vectors.
      pad_vocab_to: the stored vocabulary is rounded up to a multiple of this.
    """

    size: str = 'base'
    vocab_size: int = 0
    positions: int = 512
    segments: int = 2
    pad_vocab_to: int = 128

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise UserError(f'There is no BERT size {self.size!r}: choose one of {", ".join(SIZES)}.')
        for name, value in zip(('layers', 'width', 'heads', 'mlp'), SIZES[self.size], strict=True):
            object.__setattr__(self, name, getattr(self, name) or value)
        super().__post_init__()

    @property
    def padded_vocab(self) -> int:
        return -(-self.vocab_size // self.pad_vocab_to) * self.pad_vocab_to

    def encoder_flops(self, tokens: float, length: float) -> float:
        """Floating-point operations of a forward pass over `tokens` tokens in rows of `length`."""
        products = 4 * self.width**2 + (3 if self.gated else 2) * self.width * self.mlp
        return self.layers * tokens * (2 * products + 4 * length * self.width)


class Output(NamedTuple):
    """What an encoder returns.

    Attributes:
      hidden_states: L+1 arrays [B, T, D]: the embeddings, then the output of each layer.
      pooled: [B, D], tanh of a dense layer over the first position.
    """

    hidden_states: tuple[jax.Array, ...]
    pooled: jax.Array


class Bert(nnx.Module):
    """The encoder: embeddings, blocks and pooler."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        c = self.config = config
        self.words = param(rngs, (c.padded_vocab, c.width), ('vocab', 'embed'), c.init_std)
        self.positions = param(rngs, (c.positions, c.width), ('position', 'embed'), c.init_std)
        self.segments = param(rngs, (c.segments, c.width), (None, 'embed'), c.init_std)
        self.norm = Norm(c, rngs)
        self.layers = Stack(c, rngs)
        self.pooler = Dense(c, {'embed': c.width}, {'': c.width}, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Encodes a batch.

        Args:
          tokens: [B, T] ids.
          segments: [B, T], 0 for the first text and 1 for the second; None is all 0.
          valid: [B, T] booleans, false on padding (see `masks.padding`); None is all true.
          key: randomness of dropout; None is evaluation.

        Raises:
          UserError: if a row is longer than the learned positions.
        """
        c, (batch, length) = self.config, tokens.shape
        if length > c.positions:
            raise UserError(
                f'Rows of {length} tokens are longer than the {c.positions} positions of the model: '
                'set model.positions higher or the length lower.'
            )
        dtype = jnp.dtype(c.dtype)
        segments = jnp.zeros_like(tokens) if segments is None else segments
        x = self.words[...][tokens] + self.positions[...][:length] + self.segments[...][segments]
        x = dropout(self.norm(x.astype(dtype)), c.dropout, fold(key, 0)).reshape(batch * length, c.width)
        mask = None if valid is None else masks.padding(valid)
        positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        outputs = self.layers(x, mask, positions, fold(key, 1))
        hidden = tuple(h.reshape(batch, length, c.width) for h in (x, *outputs))
        return Output(hidden, jnp.tanh(self.pooler(hidden[-1][:, 0])))
