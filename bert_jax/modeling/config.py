"""Settings that all models share; the `Config` of each model adds its sizes and defaults."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.modeling.attention import Implementation

Activation = Literal['gelu', 'gelu_tanh', 'relu', 'relu_squared', 'silu']


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Settings of a stack of transformer blocks with token and position embeddings; the defaults are BERT's.

    Attributes:
      causal: whether a token attends only to itself and earlier tokens; fixed for each model class.
      width: model width D.
      heads: number of attention heads N, a divisor of `width` unless `head_width` is set.
      head_width: head width H; 0 uses `width` / `heads`.
      kv_heads: number of key and value heads, each shared by a group of query heads (Ainslie et al. 2023);
        0 uses `heads`.
      mlp_width: feed-forward width F.
      layers: number of blocks L.
      norm_placement: 'post' normalizes after the residual sum (Vaswani et al. 2017), 'pre' before each
        sublayer and once more after the last block (Xiong et al. 2020).
      norm_kind: layer norm (Ba et al. 2016) or RMS norm (Zhang & Sennrich 2019).
      norm_eps: constant added to the variance.
      norm_bias: whether layer norms have a bias.
      first_norm: whether the first block normalizes the input of its attention; with 'pre', the embeddings may be
        normalized already.
      use_bias: whether dense layers have a bias; classifiers always have one.
      head_bias: whether the pooler and prediction heads have a bias even without `use_bias`.
      qk_norm: whether an RMS norm of each head follows the projections to queries and keys (Dehghani et al. 2023).
      activation: activation of the feed-forward layer; 'gelu' is exact, 'relu_squared' that of So et al. (2021).
      gated_mlp: whether the activation is multiplied by a second projection (Shazeer 2020, GLU variants).
      prediction_head: whether classifiers of tokens, the pooler of BERT and the heads of GPT and BART begin as BERT's
        masked-LM head does: with a dense layer, activation and norm; a language-model head then ends with a bias.
      rope_base: base of the rotary position embedding (Su et al. 2021); 0 disables it.
      window: largest distance in tokens at which a token attends to another in local layers (Beltagy et al. 2020); 0 makes
        all layers global.
      global_every: with `window`, distance between global layers, of which the first layer is one; all others are local.
      local_rope_base: base of the rotary position embedding in local layers; 0 uses `rope_base`.
      relative_buckets: number of relative-position buckets (Raffel et al. 2020), see `RelativeBias`; T5 has
        32, 0 disables the bias.
      learned_positions: whether the model learns position embeddings even with `rope_base` or `relative_buckets`.
      relative_max_distance: distance in tokens; this and all larger distances share the last bucket.
      disentangled_buckets: number of buckets in each direction of disentangled attention, see `DisentangledAttention`;
        DeBERTa has 256 and a largest distance of 512, 0 disables it.
      scale_attention: whether the scores of attention are divided by the root of the head width; T5 does not.
      tied_embeddings: whether language-model heads share the token embedding; otherwise they have their own output embedding.
      scale_logits: whether the heads of GPT and BART multiply hidden states by D^-0.5 before the output embedding, as in T5.
      dropout: dropout rate of embeddings and of the output of each sublayer.
      attention_dropout: dropout rate of attention probabilities.
      init_std: standard deviation of the normal distribution of initial parameters, before it is truncated at two
        standard deviations.
      scaled_residual_init: whether `init_std` is divided by sqrt(2 L) for projections into the residual
        stream (Radford et al. 2019, section 2.3).
      zero_residual_init: whether these projections are zero at first, so that a block begins as the identity.
      dtype: type of activations; parameters, softmax and losses are always float32.
      attention_implementation: attention kernel: 'auto', or one that is used where it applies, see `attention.attend`.
      scan_layers: whether the repeated layers, all but the last, run as one `jax.lax.scan`, which compiles faster. Their
        parameters are stored stacked, see `core.stacking`.
      remat: activations that the backward pass recomputes: none, all of a block but its matrix products
        ('dots'), or the whole block ('full').
      vocab_size: vocabulary size V; 0 takes the size of the tokenizer.
      max_positions: number of learned positions, which is the longest row in tokens; ignored with
        `rope_base`, `relative_buckets` or `disentangled_buckets`, which set no limit, unless `learned_positions`.
      position_offset: number of unused rows at the start of the position table (2 in RoBERTa).
      pad_vocab_multiple: multiple to which the stored vocabulary is padded.
    """

    causal: ClassVar[bool] = False
    width: int = 0
    heads: int = 0
    head_width: int = 0
    kv_heads: int = 0
    mlp_width: int = 0
    layers: int = 0
    norm_placement: Literal['post', 'pre'] = 'post'
    norm_kind: Literal['layer', 'rms'] = 'layer'
    norm_eps: float = 1e-12
    norm_bias: bool = True
    first_norm: bool = True
    use_bias: bool = True
    head_bias: bool = False
    qk_norm: bool = False
    activation: Activation = 'gelu'
    gated_mlp: bool = False
    prediction_head: bool = False
    rope_base: float = 0.0
    window: int = 0
    global_every: int = 3
    local_rope_base: float = 0.0
    relative_buckets: int = 0
    relative_max_distance: int = 128
    disentangled_buckets: int = 0
    scale_attention: bool = True
    tied_embeddings: bool = True
    scale_logits: bool = False
    learned_positions: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    scaled_residual_init: bool = False
    zero_residual_init: bool = False
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    attention_implementation: Implementation = 'auto'
    scan_layers: bool = False
    remat: Literal['none', 'dots', 'full'] = 'none'
    vocab_size: int = 0
    max_positions: int = 512
    position_offset: int = 0
    pad_vocab_multiple: int = 128

    def __post_init__(self) -> None:
        check_range(self, 'model', 0, math.inf, 'vocab_size', 'position_offset', 'kv_heads', 'head_width')
        check_range(self, 'model', 0, math.inf, 'rope_base', 'local_rope_base', 'init_std', 'norm_eps')
        check_range(self, 'model', 0, math.inf, 'relative_buckets', 'disentangled_buckets', 'window')
        check_range(self, 'model', 1, math.inf, 'width', 'heads', 'mlp_width', 'layers')
        check_range(self, 'model', 1, math.inf, 'max_positions', 'pad_vocab_multiple', 'global_every')
        check_range(self, 'model', 0, 0.99, 'dropout', 'attention_dropout')
        if self.relative_buckets and not 4 <= self.relative_buckets < self.relative_max_distance:
            raise UserError(
                f'model.relative_buckets={self.relative_buckets} must be 0, or at least 4 and less than '
                f'model.relative_max_distance={self.relative_max_distance}.'
            )
        if self.window and self.relative_buckets:
            raise UserError(
                f'model.window={self.window} does not support model.relative_buckets={self.relative_buckets}. '
                'Set one of them to 0.'
            )
        if self.qk_norm and self.disentangled_buckets:
            raise UserError('model.qk_norm=True needs model.disentangled_buckets=0. Set one of the two.')
        if not self.first_norm and self.norm_placement == 'post':
            raise UserError("model.first_norm=False needs model.norm_placement='pre'. Set one of the two.")
        if self.width % self.heads and not self.head_width:
            raise UserError(f'model.width={self.width} is not divisible by model.heads={self.heads}.')
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(f'model.heads={self.heads} is not divisible by model.kv_heads={self.kv_heads}.')
        if self.rope_base and self.width_per_head % 2:
            setting = 'model.head_width' if self.head_width else 'model.width / model.heads'
            raise UserError(
                f'model.rope_base={self.rope_base:g} needs an even head width, but {setting} is {self.width_per_head}.'
            )

    @property
    def name(self) -> str:
        """Name of the module of this model in `modeling/`, which is `model.name` in a config."""
        return type(self).__module__.rpartition('.')[2]

    def _fill_in_size(self, sizes: Mapping[str, tuple[int, ...]], size: str, *fields: str) -> None:
        """Set each of the `fields` that is 0 to its value in `sizes[size]`, which has one value per field."""
        if size not in sizes:
            raise UserError(
                f'model.size={size!r} is not a size of {self.name.upper()}. Choose one of {", ".join(sizes)}.'
            )
        for field, value in zip(fields, sizes[size], strict=True):
            object.__setattr__(self, field, getattr(self, field) or value)

    @property
    def width_per_head(self) -> int:
        """Head width H."""
        return self.head_width or self.width // self.heads

    @property
    def padded_vocab(self) -> int:
        """Number of rows of the stored token embedding, `vocab_size` rounded up."""
        return -(-self.vocab_size // self.pad_vocab_multiple) * self.pad_vocab_multiple

    def for_layer(self, layer: int) -> Self:
        """Return the settings of one block, counted from 0: without a window in global layers, with it in local ones."""
        is_local = bool(self.window) and layer % self.global_every != 0
        return dataclasses.replace(
            self,
            window=self.window if is_local else 0,
            rope_base=(is_local and self.local_rope_base) or self.rope_base,
            first_norm=self.first_norm or layer > 0,
        )

    def first_shared_layer(self, layer: int) -> int:
        """Return the first layer that has the parameters of `layer`, which is itself unless layers share them."""
        return layer

    @property
    def has_position_table(self) -> bool:
        """Whether the model has learned position embeddings."""
        others = self.rope_base or self.relative_buckets or self.disentangled_buckets
        return self.learned_positions or not others

    @property
    def num_blocks(self) -> int:
        """Number of blocks, those of encoder and decoder together."""
        return self.layers

    @property
    def token_width(self) -> int:
        """Width of the token embedding."""
        return self.width

    def base_model(self, rngs: Any, pooler: bool) -> Any:
        """Build the model of this config without a head; see `heads.Encoder` for its methods."""
        raise NotImplementedError

    @property
    def longest_row(self) -> float:
        """Tokens in the longest row that the positions of the model allow; infinity without learned positions."""
        return self.max_positions if self.has_position_table else math.inf

    def check_length(self, length: int, setting: str = 'data.length') -> None:
        """Raise a `UserError` that names `setting` if rows of `length` tokens exceed the learned positions."""
        if self.longest_row < math.inf and length > self.longest_row:
            raise UserError(
                f'Rows of {length} tokens are longer than the {self.max_positions} positions of the model. '
                f'Lower {setting} or, for a new model, raise model.max_positions.'
            )

    def encode_flops(self, tokens: float, length: float, output_tokens: float | None = None) -> float:
        """Count the floating-point operations of the blocks in `encode`; the arguments are those of `block_flops`.

        A causal model ignores `output_tokens`, because it computes the output of the last layer for all tokens.
        """
        return self.block_flops(tokens, length, None if self.causal else output_tokens)

    def block_flops(self, tokens: float, length: float, output_tokens: float | None = None) -> float:
        """Count the floating-point operations of a forward pass through the blocks.

        Causal attention counts as half of full attention.

        Args:
          tokens: number of tokens in the batch.
          length: number of tokens in a row.
          output_tokens: number of tokens for which the last layer computes its output; None means all.
        """
        kv_share = (self.kv_heads or self.heads) / self.heads
        inner_width = self.heads * self.width_per_head
        per_key = (2 + 4 * kv_share) * self.width * inner_width
        per_query = 2 * self.width * inner_width + (6 if self.gated_mlp else 4) * self.width * self.mlp_width
        total = self.layers * tokens * per_key
        for layer in range(self.layers):
            window = self.for_layer(layer).window
            num_keys = min(length, 2 * window + 1) if window else length
            attention = (2 if self.causal else 4) * num_keys * inner_width
            queries = tokens if output_tokens is None or layer < self.layers - 1 else output_tokens
            total += queries * (per_query + attention)
        return total
