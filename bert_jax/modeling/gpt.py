"""GPT-2 (Radford et al. 2019): a causal transformer decoder; settings turn it into later variants."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax

from bert_jax.modeling import masks
from bert_jax.modeling.config import Activation, ModelConfig
from bert_jax.modeling.heads import LanguageModel, Output, embed_tokens
from bert_jax.modeling.layers import Cache, token_embedding
from bert_jax.modeling.module import Rngs
from bert_jax.modeling.stack import EmbeddedStack

# Layers, width, heads: table 2 of the paper; tiny and mini have the width of the small BERTs.
SIZES = {
    'tiny': (2, 128, 2),
    'mini': (4, 256, 4),
    'small': (12, 768, 12),
    'medium': (24, 1024, 16),
    'large': (36, 1280, 20),
    'xl': (48, 1600, 25),
}


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """Settings of a GPT model, in addition to those of `ModelConfig`; the defaults are those of GPT-2.

    Attributes:
      size: name in `SIZES`, which sets layers, width and heads where they are 0; `mlp_width` 0 becomes 4 D.
      embedding_norm: whether the embeddings are normalized before the first block.
    """

    causal: ClassVar[bool] = True
    size: str = 'small'
    embedding_norm: bool = False
    max_positions: int = 1024
    norm_placement: Literal['post', 'pre'] = 'pre'
    norm_eps: float = 1e-5
    activation: Activation = 'gelu_tanh'
    scaled_residual_init: bool = True

    def __post_init__(self) -> None:
        self._fill_in_size(SIZES, self.size, 'layers', 'width', 'heads')
        object.__setattr__(self, 'mlp_width', self.mlp_width or 4 * self.width)
        super().__post_init__()

    def base_model(self, rngs: Rngs, pooler: bool) -> 'Gpt':
        return Gpt(self, rngs)


class Gpt(EmbeddedStack):
    """GPT without a head: embeddings and causal blocks."""

    def __init__(self, config: Config, rngs: Rngs):
        self.token_embedding = token_embedding(config, rngs)
        super().__init__(config, rngs, embedding_norm=config.embedding_norm)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Encode a batch.

        The pooled vector of a row is the last hidden state of its last real token (Radford et al. 2018, section 3.2).

        Args:
          tokens: [B, T] token ids.
          segments: ignored; all models share this signature.
          valid: [B, T] booleans, false on padding, or document numbers of a packed row (see
            `masks.padding`), with each of which the positions restart; None means all true.
          key: random key of dropout; None disables dropout.

        Raises:
          UserError: if T exceeds the number of learned positions, unless the rows are packed.
        """
        hidden = self.run(embed_tokens(self.token_embedding, tokens), masks.causal(valid), key)
        return Output(hidden, masks.select_last(hidden[-1], valid))

    encode = __call__

    def encode_pooled(
        self, tokens: jax.Array, segments: Any, valid: Any, key: Any, starts: jax.Array | None = None
    ) -> jax.Array:
        """Compute only the pooled vectors [B, D], or [B, K, D] for packed rows; arguments as in `Bert.encode_pooled`."""
        hidden = self(tokens, segments, valid, key).hidden_states[-1]
        return masks.select_last(hidden, valid, starts)


class GptForCausalLM(LanguageModel):
    """GPT with a language-model head."""

    gpt: Gpt

    def init_cache(self, batch: int, slots: int) -> list[Cache]:
        """Create an empty cache with room for `slots` tokens in each of `batch` rows."""
        self.config.check_length(slots)
        return self.gpt.layers.init_cache(batch, slots)

    def extend(self, tokens: jax.Array, *args: Any) -> tuple[jax.Array, list[Cache]]:
        """Compute the logits [B, V] after the last of the new tokens [B, t]; other arguments as in `Stack.extend`."""
        hidden, cache = self.gpt.extend(embed_tokens(self.gpt.token_embedding, tokens), *args)
        return self._logits(hidden[:, -1]), cache
