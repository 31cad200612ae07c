"""BART (Lewis et al. 2020, arXiv 1910.13461): an encoder-decoder that restores corrupted text."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import check_range
from bert_jax.modeling import masks
from bert_jax.modeling.blocks import DecoderBlock
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import fold_in
from bert_jax.modeling.heads import LanguageModel, Output, embed_tokens
from bert_jax.modeling.layers import Dense, EncoderCache, token_embedding
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.module import Rngs
from bert_jax.modeling.scanned_blocks import unstack_blocks
from bert_jax.modeling.stack import EmbeddedStack

# Layers of encoder and of decoder, width, heads, feed-forward width: base and large from section 2 of the
# paper; tiny and mini have the width of the small BERTs.
SIZES = {
    'tiny': (2, 128, 2, 512),
    'mini': (4, 256, 4, 1024),
    'base': (6, 768, 12, 3072),
    'large': (12, 1024, 16, 4096),
}


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """Settings of a BART model, in addition to those of `ModelConfig`.

    Attributes:
      size: name in `SIZES`, which sets layers, width, heads and mlp_width where they are 0.
      decoder_layers: number of decoder blocks; 0 uses `layers`.
      logits_bias: whether the language-model head has a bias.
    """

    size: str = 'base'
    decoder_layers: int = 0
    logits_bias: bool = True
    max_positions: int = 1024
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        self._fill_in_size(SIZES, self.size, 'layers', 'width', 'heads', 'mlp_width')
        check_range(self, 'model', 0, float('inf'), 'decoder_layers')
        object.__setattr__(self, 'decoder_layers', self.decoder_layers or self.layers)
        super().__post_init__()

    def base_model(self, rngs: Rngs, pooler: bool) -> 'Bart':
        return Bart(self, rngs, pooler)

    @property
    def num_blocks(self) -> int:
        return self.layers + self.decoder_layers

    def encode_flops(self, tokens: float, length: float, output_tokens: float | None = None) -> float:
        return self.seq2seq_flops(tokens, length, tokens, length)

    def seq2seq_flops(self, tokens: float, length: float, targets: float, target_length: float) -> float:
        """Count the floating-point operations of a forward pass through encoder and decoder blocks.

        Args:
          tokens: number of source tokens in the batch.
          length: number of tokens in a source row.
          targets: number of decoder input tokens in the batch.
          target_length: number of tokens in a decoder row.
        """
        w, inner_width = self.width, self.heads * self.width_per_head
        decoder = dataclasses.replace(self, layers=self.decoder_layers).block_flops(targets, target_length)
        decoder -= (
            self.decoder_layers * targets * 2 * target_length * inner_width
        )  # causal attention counts half
        cross_attention = (targets + tokens) * 4 * w * inner_width + targets * 4 * length * inner_width
        return self.block_flops(tokens, length) + decoder + self.decoder_layers * cross_attention


class Bart(nnx.Module):
    """BART without a head: encoder and decoder with a shared token embedding, and an optional pooler."""

    def __init__(self, config: Config, rngs: Rngs, pooler: bool = False):
        c = self.config = config
        self.token_embedding = token_embedding(c, rngs)
        norm = c.norm_placement == 'post'
        self.encoder = EmbeddedStack(c, rngs, embedding_norm=norm)
        decoder_config = dataclasses.replace(c, layers=c.decoder_layers)
        self.decoder = EmbeddedStack(decoder_config, rngs, DecoderBlock, embedding_norm=norm)
        self.pooler = Dense(c, {'embed': c.width}, {'': c.width}, rngs) if pooler else None

    def __call__(
        self,
        tokens: jax.Array,
        targets: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        target_documents: jax.Array | None = None,
    ) -> Output:
        """Encode a source text and run the decoder on the target text.

        Args:
          tokens: [B, S] source token ids.
          targets: [B, T] decoder input ids; each attends to itself, earlier targets and the source. None uses the
            source shifted right by one, beginning with the last real token of the text, as in pretraining.
          valid: [B, S] booleans, false on source padding, or document numbers of a packed row (see `masks.padding`); None
            means all true.
          key: random key of dropout; None disables dropout.
          positions: [B, T] positions of the targets; None means 0, 1, 2, ..., restarted with each document of a packed
            row.
          segments: ignored; all models share this argument.
          target_documents: [B, T] document of each target of packed rows, which attends to the source and the targets
            of its document; None means one document in each row. With `targets=None`, those of `valid` are used.
        """
        if targets is None and valid is not None and valid.dtype != jnp.bool_:
            target_documents = valid
            last = masks.select(tokens, masks.last_positions(valid))
            is_first = masks.restart_positions(valid) == 0
            targets = jnp.where(is_first, last, jnp.roll(tokens, 1, 1))
        elif targets is None:
            targets = jnp.roll(tokens, 1, 1).at[:, 0].set(masks.select_last(tokens, valid))
        encoded, mask = self.encode_source(tokens, valid, fold_in(key, 0))
        memory = encoded[-1], dataclasses.replace(mask, query_documents=target_documents)
        x, mask = embed_tokens(self.token_embedding, targets), masks.causal(target_documents)
        decoded = self.decoder.run(x, mask, fold_in(key, 1), positions, memory=memory)
        return Output(decoded, encoder_hidden_states=encoded)

    def encode(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Run encoder and decoder on the same text, for the heads of other tasks (sections 3.1 and 3.2 of the paper).

        The decoder input is the shifted source of `__call__`. The hidden states are those of the decoder; the
        pooled vector is tanh of a dense layer over the last hidden state of the last real token. `segments` is
        ignored.
        """
        hidden = self(tokens, None, valid, key).hidden_states
        return Output(hidden, None if self.pooler is None else self._pool(hidden[-1], valid))

    def encode_pooled(
        self, tokens: jax.Array, segments: Any, valid: Any, key: Any, starts: jax.Array | None = None
    ) -> jax.Array:
        """Compute only the pooled vectors [B, D], or [B, K, D] for packed rows; arguments as in `Bert.encode_pooled`."""
        return self._pool(self(tokens, None, valid, key).hidden_states[-1], valid, starts)

    def _pool(self, hidden: jax.Array, valid: Any, starts: jax.Array | None = None) -> jax.Array:
        """Map hidden states [B, T, D] to the pooled vectors of the last real tokens, see `masks.select_last`."""
        x = masks.select_last(hidden, valid, starts)
        return jnp.tanh(self.pooler(x.reshape(-1, x.shape[-1])).reshape(x.shape))  # type: ignore[misc]

    def encode_source(
        self, tokens: jax.Array, valid: jax.Array | None, key: jax.Array | None
    ) -> tuple[tuple[jax.Array, ...], Mask]:
        """Compute the L+1 hidden states of the encoder and the mask of the source; arguments as in a call."""
        mask = masks.padding(jnp.ones(tokens.shape, bool) if valid is None else valid)
        return self.encoder.run(embed_tokens(self.token_embedding, tokens), mask, key), mask


class BartForSeq2Seq(LanguageModel):
    """BART with a language-model head."""

    bart: Bart

    def __init__(self, config: Config, rngs: Rngs):
        super().__init__(config, rngs, bias=config.logits_bias)

    def init_cache(self, batch: int, slots: int, tokens: jax.Array, valid: jax.Array | None = None) -> Any:
        """Encode the source [B, S] and create a cache with room for `slots` decoder tokens."""
        self.config.check_length(slots)
        hidden_states, mask = self.bart.encode_source(tokens, valid, None)
        layers = self.bart.decoder.layers
        blocks: Any = unstack_blocks(layers.blocks)
        keys_and_values = [b.cross_attention.keys_and_values(hidden_states[-1]) for b in blocks]
        return layers.init_cache(batch, slots), EncoderCache(keys_and_values, mask)

    def extend(
        self, tokens: jax.Array, mask: jax.Array, positions: jax.Array, cache: Any, index: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Compute the logits [B, V] after the last of the new tokens [B, t]; see `Stack.extend`."""
        self_cache, encoder_cache = cache
        x = embed_tokens(self.bart.token_embedding, tokens)
        hidden, self_cache = self.bart.decoder.extend(x, mask, positions, self_cache, index, encoder_cache)
        return self._logits(hidden[:, -1]), (self_cache, encoder_cache)
