"""BART (Lewis et al. 2020, arXiv 1910.13461): an encoder that reads a broken text, a decoder that restores it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.config import within
from bert_jax.modeling import masks
from bert_jax.modeling.bert import Output
from bert_jax.modeling.blocks import Block, DecoderBlock
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold
from bert_jax.modeling.heads import real_words_only, word_scores
from bert_jax.modeling.layers import Dense, Norm, Read, param, position_table, word_table
from bert_jax.modeling.losses import sequence_loss
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.stack import Stack

# Layers of each half, width, heads, feed-forward: base and large of section 2; tiny and mini are as wide as BERT's.
SIZES = {
    'tiny': (2, 128, 2, 512),
    'mini': (4, 256, 4, 1024),
    'base': (6, 768, 12, 3072),
    'large': (12, 1024, 16, 4096),
}


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """An encoder-decoder; see `BlockConfig` for the shape of its blocks.

    Attributes:
      size: a name in `SIZES`; it fills in layers, width, heads and mlp where they are 0.
      decoder_layers: of the decoder; 0 is as many as the encoder has.
    """

    size: str = 'base'
    decoder_layers: int = 0
    positions: int = 1024
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        self._take_size(SIZES, self.size, 'layers', 'width', 'heads', 'mlp')
        within(self, 'model', 0, float('inf'), 'decoder_layers')
        object.__setattr__(self, 'decoder_layers', self.decoder_layers or self.layers)
        super().__post_init__()

    def body(self, rngs: nnx.Rngs, pooler: bool) -> 'Bart':
        return Bart(self, rngs, pooler)

    def read_flops(self, tokens: float, length: float, at: float | None = None) -> float:
        return self.seq2seq_flops(tokens, length, tokens, length)

    @property
    def blocks(self) -> int:
        return self.layers + self.decoder_layers

    def seq2seq_flops(self, tokens: float, length: float, targets: float, target_length: float) -> float:
        """Floating-point operations of a forward pass through the blocks of both halves.

        Args:
          tokens, length: real tokens that are read, in rows of `length`.
          targets, target_length: those that the decoder goes on from.
        """
        decoder = dataclasses.replace(self, layers=self.decoder_layers)
        own = decoder.block_flops(targets, target_length)
        own -= self.decoder_layers * targets * 2 * target_length * self.width  # a token sees half
        look = targets * 4 * self.width**2 + tokens * 4 * self.width**2 + targets * 4 * length * self.width
        return self.block_flops(tokens, length) + own + self.decoder_layers * look


class Seq2SeqOutput(NamedTuple):
    """What an encoder-decoder returns.

    Attributes:
      hidden_states: of the decoder, L+1 arrays [B, T, D]: the embeddings, then the output of each layer.
      encoder_hidden_states: of the encoder, L+1 arrays [B, S, D].
      logits: [B, T, V] float32 scores of the next tokens; None without a head.
    """

    hidden_states: tuple[jax.Array, ...]
    encoder_hidden_states: tuple[jax.Array, ...]
    logits: Any = None


class Half(nnx.Module):
    """The encoder or the decoder: positions, the norm of its embeddings, its blocks."""

    def __init__(self, config: Config, rngs: nnx.Rngs, block: type[Block]):
        c = self.config = config
        self.positions = position_table(c, rngs)
        self.norm = Norm(c, rngs) if c.norm == 'post' else None
        self.layers = Stack(c, rngs, block, causal=block is DecoderBlock)

    def embed(self, words: jax.Array, positions: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Word vectors [B, T, D] at positions [T] or [B, T] to [B*T, D]."""
        c = self.config
        x = words if self.positions is None else words + self.positions[...][c.first_position + positions]
        x = x.astype(c.dtype).reshape(-1, c.width)
        return dropout(x if self.norm is None else self.norm(x), c.dropout, key)

    def __call__(
        self,
        words: jax.Array,
        mask: Mask | jax.Array | None,
        key: jax.Array | None,
        memory: Any = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """L+1 arrays [B, T, D] from word vectors [B, T, D]."""
        batch, length, width = words.shape
        self.config.check_length(length)
        counted = jnp.arange(length) if positions is None else positions
        x = self.embed(words, counted, fold(key, 0))
        positions = jnp.broadcast_to(counted, (batch, length))
        outputs = self.layers(x, mask, positions, fold(key, 1), memory=memory)
        return tuple(h.reshape(batch, length, width) for h in (x, *outputs))


class Bart(nnx.Module):
    """Both halves, with one table of words; a pooler is for heads over a whole row."""

    def __init__(self, config: Config, rngs: nnx.Rngs, pooler: bool = False):
        c = self.config = config
        self.words = word_table(c, rngs)
        self.encoder = Half(c, rngs, Block)
        self.decoder = Half(dataclasses.replace(c, layers=c.decoder_layers), rngs, DecoderBlock)
        self.pooler = Dense(c, {'embed': c.width}, {'': c.width}, rngs) if pooler else None

    def __call__(
        self,
        tokens: jax.Array,
        targets: jax.Array,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> Seq2SeqOutput:
        """Reads a text and what was written of the other so far.

        Args:
          tokens: [B, S] ids of the text that is read.
          targets: [B, T] ids that the decoder goes on from; each sees those before it.
          valid: [B, S], which tokens are real, see `masks.padding`; None is all.
          key: randomness of dropout; None is evaluation.
          positions: [B, T], of the targets; None counts from 0.
        """
        encoded, memory = self._encode(tokens, valid, fold(key, 0))
        causal = masks.causal()
        decoded = self.decoder(self.words[...][targets], causal, fold(key, 1), memory, positions)
        return Seq2SeqOutput(decoded, encoded)

    def read(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Output:
        """Both halves read the same texts (section 3.1 and 3.2 of the paper).

        The decoder goes on from the last token of each row, then its tokens but the last, as in pretraining: at a
        token it has seen those before it, and the encoder all. The hidden states are the decoder's; the pooled
        vector is tanh of a dense layer over its last.
        """
        before = jnp.roll(tokens, 1, 1).at[:, 0].set(masks.at_last(tokens, valid))
        hidden = self(tokens, before, valid, key).hidden_states
        if self.pooler is None:
            return Output(hidden, None)
        return Output(hidden, jnp.tanh(self.pooler(masks.at_last(hidden[-1], valid))))

    def pool(self, *args: Any) -> jax.Array:
        """The pooled vectors [B, D] of `read`."""
        return self.read(*args).pooled

    def _encode(
        self, tokens: jax.Array, valid: jax.Array | None, key: jax.Array | None
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, Mask]]:
        """The encoder's hidden states, and what the decoder sees: the last, [B*S, D], with their mask."""
        mask = masks.padding(jnp.ones(tokens.shape, bool) if valid is None else valid)
        encoded = self.encoder(self.words[...][tokens], mask, key)
        return encoded, (encoded[-1].reshape(-1, self.config.width), mask)

    def empty_cache(
        self, batch: int, slots: int, tokens: jax.Array, valid: jax.Array | None = None
    ) -> dict[str, Any]:
        """Reads the text [B, S] and makes room for `slots` tokens of the decoder."""
        self.config.check_length(slots)
        _, (hidden, mask) = self._encode(tokens, valid, None)
        return {'layers': self.decoder.layers.empty_cache(batch, slots, hidden), 'mask': Read(mask)}

    def extend(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: dict[str, Any],
        index: jax.Array,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Hidden states [B, t, D] of the decoder's tokens [B, t] that go on from those in the cache."""
        x = self.decoder.embed(self.words[...][tokens], positions)
        memory = cache['mask'].value
        x, layers = self.decoder.layers.extend(x, mask, positions, cache['layers'], index, memory)
        return x.reshape(*tokens.shape, -1), {**cache, 'layers': layers}


class BartForSeq2Seq(nnx.Module):
    """BART whose words, with a bias, are its output table."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.bart = Bart(config, rngs)
        self.logits_bias = param(rngs, (config.padded_vocab,), ('vocab',), 0)

    def __call__(self, *args: Any, **kwargs: Any) -> Seq2SeqOutput:
        """As `Bart`, with the scores of the next tokens."""
        out = self.bart(*args, **kwargs)
        return out._replace(logits=self._scores(out.hidden_states[-1]))

    def _scores(self, hidden: jax.Array) -> jax.Array:
        """[..., D] to float32 [..., V]."""
        return word_scores(hidden, self.bart.words, self.bart.config, self.logits_bias[...])

    def token_loss(self, hidden: jax.Array, labels: jax.Array, chunk: int = 0) -> tuple[jax.Array, jax.Array]:
        """Loss and correctness [B, T] of predicting `labels` [B, T] from the decoder's [B, T, D]; see `sequence_loss`."""
        bias = real_words_only(self.bart.config, self.logits_bias[...])
        return sequence_loss(hidden, self.bart.words[...].astype(hidden.dtype), bias, labels, chunk)

    def empty_cache(self, *args: Any) -> dict[str, Any]:
        """As of `Bart`."""
        return self.bart.empty_cache(*args)

    def extend(self, *args: Any) -> tuple[jax.Array, dict[str, Any]]:
        """As of `Bart`, with the scores [B, V] of what follows the last token."""
        hidden, cache = self.bart.extend(*args)
        return self._scores(hidden[:, -1]), cache
