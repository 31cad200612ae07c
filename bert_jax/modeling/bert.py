"""BERT (Devlin et al. 2019, arXiv 1810.04805): a bidirectional transformer encoder."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.modeling import disentangled, masks, pooling
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.heads import (
    Output,
    embed_tokens,
    head_logits,
    vocabulary_bias,
    vocabulary_logits,
)
from bert_jax.modeling.layers import Dense, token_embedding
from bert_jax.modeling.losses import sequence_loss
from bert_jax.modeling.masked_lm import MaskedLM
from bert_jax.modeling.module import Rngs
from bert_jax.modeling.stack import EmbeddedStack

# Layers, width, heads, feed-forward width: base and large from section 3 of the paper, the smaller ones
# from Turc et al. 2019 (arXiv 1908.08962).
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
    """Settings of a BERT model, in addition to those of `ModelConfig`.

    Attributes:
      size: name in `SIZES`, which sets layers, width, heads and mlp_width where they are 0.
      segments: number of segment embeddings; 0 disables them, 1 shares one between both texts of a pair.
      pooling: vector of a row that the pooler reads: the last hidden state of its first token ('cls'), or their mean;
        'late' applies the pooler to each token and takes the mean of its outputs.
      pooler_activation: activation of the pooled vector; DistilBERT uses 'relu', ELECTRA and EuroBERT 'gelu'.
      masked_lm_transform: whether the masked-LM head begins with a dense layer, activation and norm, and ends with a bias;
        otherwise it is only the output embedding, with a bias if other dense layers have one.
      embedding_norm: whether the sum of the embeddings is normalized.
      embedding_width: width of the embeddings, which a dense layer then projects to `width` (Lan et al. 2020, arXiv
        1909.11942, section 3.1); 0 uses `width` and no projection.
      layer_groups: number of blocks, each shared by consecutive layers (Lan et al. 2020, section 3.1); 0 shares none.
    """

    size: str = 'base'
    segments: int = 2
    pooling: Literal['cls', 'mean', 'late'] = 'cls'
    pooler_activation: Literal['tanh', 'relu', 'gelu'] = 'tanh'
    masked_lm_transform: bool = True
    embedding_norm: bool = True
    embedding_width: int = 0
    layer_groups: int = 0

    def __post_init__(self) -> None:
        self._fill_in_size(SIZES, self.size, 'layers', 'width', 'heads', 'mlp_width')
        check_range(self, 'model', 0, math.inf, 'segments', 'embedding_width')
        super().__post_init__()
        check_range(self, 'model', 0, self.layers, 'layer_groups')
        if self.layer_groups and (self.scan_layers or self.window or not self.first_norm):
            raise UserError(
                f'model.layer_groups={self.layer_groups} shares the parameters of layers, which needs '
                'model.scan_layers=false, model.window=0 and model.first_norm=true. Set them, or model.layer_groups=0.'
            )

    @property
    def token_width(self) -> int:
        return self.embedding_width or self.width

    def first_shared_layer(self, layer: int) -> int:
        if not self.layer_groups:
            return layer
        # As transformers rounds it where the groups do not divide the layers.
        groups = [int(i / (self.layers / self.layer_groups)) for i in range(layer + 1)]
        return groups.index(groups[layer])

    def block_flops(self, tokens: float, length: float, output_tokens: float | None = None) -> float:
        projection = 2 * tokens * self.embedding_width * self.width
        positions = disentangled.flops(self, tokens, length, output_tokens)
        return projection + positions + super().block_flops(tokens, length, output_tokens)

    def base_model(self, rngs: Rngs, pooler: bool) -> 'Bert':
        return Bert(self, rngs, pooler)


class Bert(EmbeddedStack):
    """BERT without a head: embeddings, blocks and an optional pooler.

    Attributes:
      embedding_projection: dense layer from the embeddings to the first block, or None, see `Config.embedding_width`.
    """

    config: Config

    def __init__(self, config: Config, rngs: Rngs, pooler: bool = True):
        self.token_embedding = token_embedding(config, rngs)
        super().__init__(config, rngs, segments=config.segments, embedding_norm=config.embedding_norm)
        c = config
        self.embedding_projection = (
            Dense(c, {'': c.embedding_width}, {'embed': c.width}, rngs) if c.embedding_width else None
        )
        self.pooler = pooling.make(c, rngs) if pooler else None

    def embed(self, x: jax.Array, positions: jax.Array | None, key: jax.Array | None = None) -> jax.Array:
        x = super().embed(x, positions, key)
        return x if self.embedding_projection is None else self.embedding_projection(x)

    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        output_positions: jax.Array | None = None,
        positions: jax.Array | None = None,
        causal: bool = False,
    ) -> Output:
        """Encode a batch.

        Args:
          tokens: [B, T] token ids.
          segments: [B, T] 0 for the first text of a pair and 1 for the second; None means all 0.
          valid: [B, T] booleans, false on padding, or document numbers of a packed row (see
            `masks.padding`); None means all true.
          key: random key of dropout; None disables dropout.
          output_positions: [B, P] positions for which the last layer computes its output, besides the first
            position, so that the last hidden states are [B, 1+P, D]; None means all. A few positions save
            most of the last layer.
          positions: [B, T] position of each token; None means 0, 1, 2, ..., restarted with each document of a packed
            row.
          causal: whether a token attends only to itself and earlier tokens.

        Raises:
          UserError: if T exceeds the number of learned positions, unless the rows are packed.
        """
        c = self.config
        x = embed_tokens(self.token_embedding, tokens)
        if self.segment_embedding is not None:
            segments = jnp.zeros_like(tokens) if segments is None else jnp.minimum(segments, c.segments - 1)
            x = x + self.segment_embedding[...][segments]
        mask = masks.causal(valid) if causal else None if valid is None else masks.padding(valid)
        if output_positions is not None:
            output_positions = jnp.pad(output_positions, ((0, 0), (1, 0)))  # the pooler reads position 0
        if self.pooler is None:
            return Output(self.run(x, mask, key, positions, output_positions))
        pools_all = c.pooling != 'cls'
        hidden = self.run(x, mask, key, positions, None if pools_all else output_positions)
        pooled = self._pool_all(hidden[-1], valid) if pools_all else self._pool(hidden[-1][:, 0])
        if pools_all and output_positions is not None:
            last = jnp.take_along_axis(hidden[-1], output_positions[..., None], axis=1)
            hidden = (*hidden[:-1], last)
        return Output(hidden, pooled)

    encode = __call__

    def encode_pooled(
        self,
        tokens: jax.Array,
        segments: jax.Array,
        valid: jax.Array,
        key: jax.Array | None,
        starts: jax.Array | None = None,
    ) -> jax.Array:
        """Compute only the pooled vectors, for which the last layer computes only the first position of each text.

        Args:
          tokens, segments, valid, key: as in a call.
          starts: [B, K] positions of the first tokens of the texts in packed rows; None means one text in each row.

        Returns:
          [B, D], or [B, K, D] for packed rows.
        """
        if self.config.pooling != 'cls':
            out = self(tokens, segments, valid, key)
            return (
                out.pooled
                if starts is None
                else self._pool_all(out.hidden_states[-1], valid, starts.shape[1])
            )
        others = jnp.zeros((tokens.shape[0], 0), jnp.int32) if starts is None else starts
        out = self(tokens, segments, valid, key, others)
        return out.pooled if starts is None else self._pool(out.hidden_states[-1][:, 1:])

    def _pool_all(self, hidden: jax.Array, valid: jax.Array | None, num_texts: int = 0) -> jax.Array:
        """Compute pooled vectors from all tokens; arguments as in `pooling.mean`."""
        if self.config.pooling == 'late':
            return pooling.mean(self._pool(hidden), valid, num_texts)
        return self._pool(pooling.mean(hidden, valid, num_texts))

    def _pool(self, x: jax.Array) -> jax.Array:
        """Map the vectors [..., D] of texts to pooled vectors."""
        c = self.config
        y = self.pooler(x.reshape(-1, x.shape[-1]))  # type: ignore[misc]
        return (y if c.prediction_head else pooling.ACTIVATIONS[c.pooler_activation](y)).reshape(x.shape)


class BertForPretraining(nnx.Module):
    """BERT with its pretraining heads: masked LM and, optionally, next-sentence prediction (section 3.1 of the paper)."""

    def __init__(self, config: Config, rngs: Rngs, next_sentence: bool = True):
        self.bert = Bert(config, rngs, pooler=next_sentence)
        self.masked_lm = MaskedLM(config, rngs)
        self.next_sentence = Dense(config, {'embed': config.width}, {'': 2}, rngs) if next_sentence else None

    def __call__(self, *args: Any, **kwargs: Any) -> Output:
        """Run BERT and both heads; masked-LM logits are computed at every position. Arguments as in `Bert`."""
        out = self.bert(*args, **kwargs)
        logits = self.masked_lm_logits(out.hidden_states[-1])
        return out._replace(logits=logits, next_sentence=self.next_sentence_logits(out.pooled))

    def masked_lm_logits(self, hidden: jax.Array) -> jax.Array:
        """Map last hidden states [..., D] to masked-LM logits [..., V], float32."""
        features = self.masked_lm(hidden.reshape(-1, hidden.shape[-1]))
        table, bias = self.masked_lm.table_and_bias(self.bert.token_embedding)
        logits = vocabulary_logits(features, table, self.bert.config, bias)
        return logits.reshape(*hidden.shape[:-1], -1)

    def next_sentence_logits(self, pooled: jax.Array) -> Any:
        """Map pooled vectors [B, D] to logits [B, 2], float32; None without next-sentence prediction."""
        return None if self.next_sentence is None else head_logits(self.next_sentence, pooled)

    def masked_loss(self, hidden: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute the masked-LM loss at the predicted positions only.

        Args:
          hidden: [B, P, D] last hidden states at these positions.
          labels: [B, P] token ids.

        Returns:
          [B, P] float32 losses, and [B, P] booleans: whether the label has the highest logit.
        """
        features = self.masked_lm(hidden.reshape(-1, hidden.shape[-1])).reshape(*hidden.shape[:-1], -1)
        table, bias = self.masked_lm.table_and_bias(self.bert.token_embedding)
        return sequence_loss(features, table[...], vocabulary_bias(self.bert.config, bias), labels)
