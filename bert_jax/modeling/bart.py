"""BART (Lewis et al. 2020, arXiv 1910.13461): an encoder-decoder that restores corrupted text."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import check_range
from bert_jax.modeling import masks
from bert_jax.modeling.bert import Output
from bert_jax.modeling.blocks import Block, DecoderBlock
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.heads import vocabulary_bias, vocabulary_logits
from bert_jax.modeling.layers import Dense, EncoderCache, Norm, param, position_embedding, token_embedding
from bert_jax.modeling.losses import sequence_loss
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.stack import Stack

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
    """Settings of a BART model; those of its blocks are in `BlockConfig`.

    Attributes:
      size: name in `SIZES`, which sets layers, width, heads and mlp_width where they are 0.
      decoder_layers: number of decoder blocks; 0 uses `layers`.
    """

    size: str = 'base'
    decoder_layers: int = 0
    max_positions: int = 1024
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        self._fill_in_size(SIZES, self.size, 'layers', 'width', 'heads', 'mlp_width')
        check_range(self, 'model', 0, float('inf'), 'decoder_layers')
        object.__setattr__(self, 'decoder_layers', self.decoder_layers or self.layers)
        super().__post_init__()

    def base_model(self, rngs: nnx.Rngs, pooler: bool) -> 'Bart':
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
        w = self.width
        decoder = dataclasses.replace(self, layers=self.decoder_layers).block_flops(targets, target_length)
        decoder -= self.decoder_layers * targets * 2 * target_length * w  # causal attention counts half
        cross_attention = targets * 4 * w**2 + tokens * 4 * w**2 + targets * 4 * length * w
        return self.block_flops(tokens, length) + decoder + self.decoder_layers * cross_attention


class Seq2SeqOutput(NamedTuple):
    """Output of an encoder-decoder.

    Attributes:
      hidden_states: L+1 arrays [B, T, D] of the decoder: its embeddings and the output of each layer.
      encoder_hidden_states: L+1 arrays [B, S, D] of the encoder.
      logits: [B, T, V] float32 logits of the next tokens; None without a head.
    """

    hidden_states: tuple[jax.Array, ...]
    encoder_hidden_states: tuple[jax.Array, ...]
    logits: Any = None


class EncoderOrDecoder(nnx.Module):
    """One side of BART: position embedding, embedding norm and blocks; the token embedding is shared."""

    def __init__(self, config: Config, rngs: nnx.Rngs, block: type[Block]):
        c = self.config = config
        self.position_embedding = position_embedding(c, rngs)
        self.embedding_norm = Norm(c, rngs) if c.norm_placement == 'post' else None
        self.layers = Stack(c, rngs, block, causal=block is DecoderBlock)

    def embed(self, x: jax.Array, positions: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Embed positions [T] or [B, T], add them to token vectors [B, T, D], then apply norm and dropout.

        Returns:
          [B*T, D].
        """
        c = self.config
        if self.position_embedding is not None:
            x = x + self.position_embedding[...][c.position_offset + positions]
        x = x.astype(c.dtype).reshape(-1, c.width)
        return dropout(x if self.embedding_norm is None else self.embedding_norm(x), c.dropout, key)

    def __call__(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        key: jax.Array | None,
        memory: Any = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Map token vectors [B, T, D] to L+1 hidden states [B, T, D]; see `DecoderBlock` for `memory`."""
        batch, length, width = x.shape
        self.config.check_length(length)
        positions = jnp.arange(length) if positions is None else positions
        x = self.embed(x, positions, fold_in(key, 0))
        positions = jnp.broadcast_to(positions, (batch, length))
        outputs = self.layers(x, mask, positions, fold_in(key, 1), memory=memory)
        return tuple(h.reshape(batch, length, width) for h in (x, *outputs))


class Bart(nnx.Module):
    """BART without a head: encoder and decoder with a shared token embedding, and an optional pooler."""

    def __init__(self, config: Config, rngs: nnx.Rngs, pooler: bool = False):
        c = self.config = config
        self.token_embedding = token_embedding(c, rngs)
        self.encoder = EncoderOrDecoder(c, rngs, Block)
        decoder_config = dataclasses.replace(c, layers=c.decoder_layers)
        self.decoder = EncoderOrDecoder(decoder_config, rngs, DecoderBlock)
        self.pooler = Dense(c, {'embed': c.width}, {'': c.width}, rngs) if pooler else None

    def __call__(
        self,
        tokens: jax.Array,
        targets: jax.Array,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> Seq2SeqOutput:
        """Encode a source text and run the decoder on the target text.

        Args:
          tokens: [B, S] source token ids.
          targets: [B, T] decoder input ids; each attends to itself, earlier targets and the source.
          valid: [B, S] booleans, false on source padding, see `masks.padding`; None means all true.
          key: random key of dropout; None disables dropout.
          positions: [B, T] positions of the targets; None means 0, 1, 2, ...
        """
        encoded, memory = self._encode_source(tokens, valid, fold_in(key, 0))
        x = self.token_embedding[...][targets]
        decoded = self.decoder(x, masks.causal(), fold_in(key, 1), memory, positions)
        return Seq2SeqOutput(decoded, encoded)

    def encode(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Run encoder and decoder on the same text, for the heads of other tasks (sections 3.1 and 3.2 of the paper).

        As in pretraining, the decoder input is shifted right by one and begins with the last real token of
        the row. The hidden states are those of the decoder; the pooled vector is tanh of a dense layer
        over the last hidden state of the last real token. `segments` is ignored.
        """
        shifted = jnp.roll(tokens, 1, 1).at[:, 0].set(masks.select_last(tokens, valid))
        hidden = self(tokens, shifted, valid, key).hidden_states
        if self.pooler is None:
            return Output(hidden, None)
        return Output(hidden, jnp.tanh(self.pooler(masks.select_last(hidden[-1], valid))))

    def encode_pooled(self, *args: Any) -> jax.Array:
        """Compute only the pooled vectors [B, D]; arguments as in `encode`."""
        return self.encode(*args).pooled

    def _encode_source(
        self, tokens: jax.Array, valid: jax.Array | None, key: jax.Array | None
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, Mask]]:
        """Encode the source; return all hidden states, and the last one [B*S, D] with its mask for the decoder."""
        mask = masks.padding(jnp.ones(tokens.shape, bool) if valid is None else valid)
        encoded = self.encoder(self.token_embedding[...][tokens], mask, key)
        return encoded, (encoded[-1].reshape(-1, self.config.width), mask)

    def init_cache(
        self, batch: int, slots: int, tokens: jax.Array, valid: jax.Array | None = None
    ) -> dict[str, Any]:
        """Encode the source [B, S] and create a cache with room for `slots` decoder tokens."""
        self.config.check_length(slots)
        _, (hidden, mask) = self._encode_source(tokens, valid, None)
        return {'layers': self.decoder.layers.init_cache(batch, slots, hidden), 'mask': EncoderCache(mask)}

    def extend(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: dict[str, Any],
        index: jax.Array,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Compute the hidden states [B, t, D] of new decoder tokens [B, t] that follow the cache."""
        x = self.decoder.embed(self.token_embedding[...][tokens], positions)
        memory = cache['mask'].value
        x, layers = self.decoder.layers.extend(x, mask, positions, cache['layers'], index, memory)
        return x.reshape(*tokens.shape, -1), {**cache, 'layers': layers}


class BartForSeq2Seq(nnx.Module):
    """BART with a language-model head that shares the token embedding and has a bias."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.bart = Bart(config, rngs)
        self.logits_bias = param(rngs, (config.padded_vocab,), ('vocab',), 0)

    def __call__(self, *args: Any, **kwargs: Any) -> Seq2SeqOutput:
        """Run BART and compute the logits of the next tokens; arguments as in `Bart`."""
        out = self.bart(*args, **kwargs)
        return out._replace(logits=self._logits(out.hidden_states[-1]))

    def _logits(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states [..., D] to logits [..., V], float32."""
        table = self.bart.token_embedding
        return vocabulary_logits(hidden, table, self.bart.config, self.logits_bias[...])

    def token_loss(self, hidden: jax.Array, labels: jax.Array, chunk: int = 0) -> tuple[jax.Array, jax.Array]:
        """Apply `sequence_loss` to decoder states [B, T, D] and `labels` [B, T]."""
        table = self.bart.token_embedding[...].astype(hidden.dtype)
        bias = vocabulary_bias(self.bart.config, self.logits_bias[...])
        return sequence_loss(hidden, table, bias, labels, chunk)

    def init_cache(self, *args: Any) -> dict[str, Any]:
        """Create a cache; see `Bart.init_cache`."""
        return self.bart.init_cache(*args)

    def extend(self, *args: Any) -> tuple[jax.Array, dict[str, Any]]:
        """Compute the logits [B, V] after the last of the new tokens; arguments as in `Bart.extend`."""
        hidden, cache = self.bart.extend(*args)
        return self._logits(hidden[:, -1]), cache
