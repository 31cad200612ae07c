"""Shapes and choices that models share; each model's own `Config` adds its sizes and its defaults."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.modeling.attention import Implementation

Activation = Literal['gelu', 'gelu_tanh', 'relu', 'silu']


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Shape and choices of a stack of transformer blocks; the defaults are BERT's.

    Attributes:
      width: D, model width.
      heads: N; width must divide by it.
      kv_heads: of keys and values, each shared by as many heads of queries (Ainslie et al. 2023); 0 is N.
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
      relative: so many buckets of relative positions, see `relative.Relative`; T5 has 32, 0 is off.
      relative_range: the distance from which on all share the last bucket.
      dropout: of embeddings and of each sublayer's output.
      attention_dropout: of attention probabilities.
      init_std: parameters are drawn from a normal truncated at two of these.
      scale_residual: divide that of the projections into the residual stream by sqrt(2 L) (Radford et al.
        2019, section 2.3).
      dtype: of computation; parameters, softmax and losses stay float32.
      attention: how attention is computed, see `attention.attend`.
      scan: run the layers as one loop, which compiles faster.
      remat: what the backward pass computes again: nothing, all of a block but its matrix
        products ('dots'), or the whole block ('full').
    """

    width: int = 0
    heads: int = 0
    kv_heads: int = 0
    mlp: int = 0
    layers: int = 0
    norm: Literal['post', 'pre'] = 'post'
    norm_kind: Literal['layer', 'rms'] = 'layer'
    norm_eps: float = 1e-12
    bias: bool = True
    activation: Activation = 'gelu'
    gated: bool = False
    rotary: float = 0.0
    relative: int = 0
    relative_range: int = 128
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    scale_residual: bool = False
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    attention: Implementation = 'auto'
    scan: bool = False
    remat: Literal['none', 'dots', 'full'] = 'none'

    def __post_init__(self) -> None:
        within(self, 'model', 1, math.inf, 'width', 'heads', 'mlp', 'layers')
        within(self, 'model', 0, math.inf, 'kv_heads', 'norm_eps', 'rotary', 'relative', 'init_std')
        within(self, 'model', 0, 0.99, 'dropout', 'attention_dropout')
        if self.relative and (self.relative < 4 or self.relative_range <= self.relative):
            raise UserError(
                f'model.relative={self.relative} must be 4 or more, and model.relative_range above it.'
            )
        if self.width % self.heads:
            raise UserError(f'model.width={self.width} does not divide by model.heads={self.heads}.')
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(f'model.heads={self.heads} does not divide by model.kv_heads={self.kv_heads}.')
        if self.rotary and self.width // self.heads % 2:
            raise UserError(
                'model.rotary turns pairs, so the width of a head, model.width / model.heads, must be even.'
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig(BlockConfig):
    """Blocks between embeddings and a vocabulary.

    Attributes:
      vocab_size: V, entries of the tokenizer; 0 takes the tokenizer's own size.
      positions: learned positions, the longest row; with `rotary` or `relative` there are none, and no limit.
      first_position: rows of their table before that of the first token, which stand for none (RoBERTa has two).
      pad_vocab_to: the stored vocabulary is rounded up to a multiple of this.
    """

    causal: ClassVar[bool] = False  # whether a token sees only those before it
    vocab_size: int = 0
    positions: int = 512
    first_position: int = 0
    pad_vocab_to: int = 128

    def __post_init__(self) -> None:
        within(self, 'model', 0, math.inf, 'vocab_size', 'first_position')
        within(self, 'model', 1, math.inf, 'positions', 'pad_vocab_to')
        super().__post_init__()

    @property
    def name(self) -> str:
        """The file of this model in `modeling/`, which is `model.name` of a config."""
        return type(self).__module__.rpartition('.')[2]

    def _take_size(self, sizes: Mapping[str, tuple[int, ...]], size: str, *names: str) -> None:
        """Fills in what is 0 of these fields from a table of sizes, before anything is checked."""
        if size not in sizes:
            raise UserError(
                f'There is no {self.name.upper()} size {size!r}: choose one of {", ".join(sizes)}.'
            )
        for name, value in zip(names, sizes[size], strict=True):
            object.__setattr__(self, name, getattr(self, name) or value)

    @property
    def padded_vocab(self) -> int:
        return -(-self.vocab_size // self.pad_vocab_to) * self.pad_vocab_to

    def body(self, rngs: Any, pooler: bool) -> Any:
        """The model of this config without a head, as a module that reads texts; see `heads.Head`."""
        raise NotImplementedError

    def read_flops(self, tokens: float, length: float, at: float | None = None) -> float:
        """Floating-point operations of the forward pass in which it reads; arguments as of `block_flops`."""
        return self.block_flops(tokens, length, at)

    def check_length(self, length: int, setting: str = 'data.length') -> None:
        """Raises a `UserError` if a row of this length, which `setting` sets, has more tokens than there are positions."""
        if length > self.positions and not (self.rotary or self.relative):
            raise UserError(
                f'Rows of {length} tokens are longer than the {self.positions} positions of the model: '
                f'set {setting} lower or, for a new model, model.positions higher.'
            )

    @property
    def blocks(self) -> int:
        """How many there are in all halves."""
        return self.layers

    def block_flops(self, tokens: float, length: float, at: float | None = None) -> float:
        """Floating-point operations of a forward pass through the blocks of `tokens` tokens in rows of `length`.

        `at` is the number of tokens that the last layer's output is wanted of; None is all. Causal
        attention counts half.
        """
        shared = (self.kv_heads or self.heads) / self.heads
        inputs = (2 + 4 * shared) * self.width**2  # of a token that is attended to
        outputs: float = 2 * self.width**2 + (6 if self.gated else 4) * self.width * self.mlp
        outputs += (2 if self.causal else 4) * length * self.width  # of a token that attends
        last = tokens if at is None else at
        return self.layers * tokens * inputs + ((self.layers - 1) * tokens + last) * outputs
