"""A stack of transformer blocks, run one by one or as a scan, with optional rematerialization."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core.stacking import range_name
from bert_jax.modeling import attention, masks, module
from bert_jax.modeling.blocks import Block, DecoderBlock
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.disentangled import PositionEmbeddings
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.layers import Cache, EncoderCache, Norm, param
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.relative_bias import RelativeBias
from bert_jax.modeling.scanned_blocks import make_blocks, scanned_layers, unstack_blocks


class Stack(nnx.Module):
    """A sequence of L blocks and, with pre-norm, a final norm.

    Each block has its own parameters, unless the config says which layers share them. With `scan_layers`, those of repeated blocks are stored in stacked arrays.
    """

    def __init__(self, config: ModelConfig, rngs: module.Rngs, block: type[Block] = Block):
        self.config = config
        causal = config.causal or block is DecoderBlock
        self.relative_bias = RelativeBias(config, causal, rngs) if config.relative_buckets else None
        self.relative_embedding = (
            PositionEmbeddings(config, causal, rngs) if config.disentangled_buckets else None
        )
        self.blocks = make_blocks(config, rngs, block)
        self.final_norm = Norm(config, rngs) if config.norm_placement == 'pre' else None

    def __call__(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        output_positions: jax.Array | None = None,
        memory: Any = None,
    ) -> list[jax.Array]:
        """Run flat activations through all blocks.

        Args:
          x: [B*T, D] embeddings.
          mask: attention mask, see `attend`.
          positions: [B, T] integers, for rotary embeddings.
          key: random key of dropout; None disables dropout.
          output_positions: [B, P] positions at which the last block computes its output; None means all.
          memory: encoder outputs for cross-attention, see `DecoderBlock`.

        Returns:
          The output [B*T, D] of each block. With `output_positions`, the last is [B*P, D]. With pre-norm, it
          is taken after the final norm.
        """
        if self.relative_bias is not None:
            mask = self.relative_bias(mask, jnp.arange(positions.shape[1]), positions.shape[1])
        layer_mask = mask if self.relative_embedding is None else self.relative_embedding(mask)

        def run(
            graph: module.Graph,
            params: module.Params,
            x: jax.Array,
            layer: jax.Array,
            output_positions: jax.Array | None = None,
        ) -> tuple[jax.Array, list[jax.Array]]:
            block = module.merge(graph, params)
            with attention.record_weights(attention.records_weights()) as weights:
                y = block(x, layer_mask, positions, fold_in(key, layer), output_positions, memory)
            return y, weights

        run = _REMAT[self.config.remat](run)
        blocks: Any = self.blocks
        last = self.config.layers - 1
        outputs: list[jax.Array] = []

        def append(y: jax.Array, weights: list[jax.Array]) -> jax.Array:
            outputs.append(y)
            attention.add_weights(weights)
            return y

        def run_layer(x: jax.Array, layer: int) -> jax.Array:
            graph, params = module.split(blocks[layer if isinstance(blocks, nnx.List) else str(layer)])
            at = output_positions if layer == last else None
            return append(*run(graph, params, x, jnp.asarray(layer), at))

        ranges = [] if isinstance(blocks, nnx.List) else scanned_layers(self.config)
        for layer in range(ranges[0].start if ranges else last):
            x = run_layer(x, layer)
        if ranges:
            graphs, params = zip(*(module.split(blocks[range_name(r)]) for r in ranges), strict=True)

            def step(x: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
                found = []
                for graph, params, layer in zip(graphs, *inputs, strict=True):
                    found.append(run(graph, params, x, layer))
                    x = found[-1][0]
                return x, found

            x, found = jax.lax.scan(step, x, (params, [jnp.asarray(r) for r in ranges]))
            for group in range(len(ranges[0])):
                for of_block in found:
                    append(*jax.tree.map(lambda a, i=group: a[i], of_block))
        for layer in range(len(outputs), last + 1):
            x = run_layer(x, layer)
        if self.final_norm is not None:
            outputs[-1] = self.final_norm(outputs[-1])
        return outputs

    def init_cache(self, batch: int, slots: int) -> list[Cache]:
        """Create an empty cache per layer with room for `slots` tokens per row."""
        return [block.init_cache(batch, slots) for block in unstack_blocks(self.blocks)]

    def extend(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: list[Cache],
        index: jax.Array,
        encoder_cache: EncoderCache | None = None,
    ) -> tuple[jax.Array, list[Cache]]:
        """Run t new tokens per row through all blocks and append their keys and values to the cache.

        Args:
          x: [B*t, D] embeddings of the new tokens.
          mask: [B, 1, t, S] booleans, the cache slots that each new token attends to, its own included.
          positions: [B, t] integers, for rotary embeddings.
          cache: cache of each layer, see `init_cache`.
          index: cache slot of the first new token.
          encoder_cache: keys, values and mask of the encoder outputs, for the layers of a decoder.

        Returns:
          The output [B*t, D] of the last block, after the final norm if there is one; and the new cache.
        """
        if self.relative_bias is not None:
            mask = self.relative_bias(mask, index + jnp.arange(positions.shape[1]), mask.shape[-1])
        new_cache = []
        for i, block in enumerate(unstack_blocks(self.blocks)):
            memory = encoder_cache and (encoder_cache.keys_and_values[i], encoder_cache.mask)
            x, layer_cache = block.extend(x, mask, positions, cache[i], index, memory)
            new_cache.append(layer_cache)
        return (x if self.final_norm is None else self.final_norm(x)), new_cache


def unstack_model(model: nnx.Module) -> nnx.Module:
    """Return a copy of a model without stacked parameters, for loops that run its layers many times."""
    copy = module.merge(*module.split(model))
    for stack in [part for _, part in nnx.iter_graph(copy) if isinstance(part, Stack)]:
        stack.blocks = nnx.List(unstack_blocks(stack.blocks))
    return copy


# Functions whose first argument is static.
_REMAT: dict[str, Any] = {
    'none': lambda f: f,
    'dots': functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable, static_argnums=0
    ),
    'full': functools.partial(jax.checkpoint, static_argnums=0),
}


class EmbeddedStack(nnx.Module):
    """A stack of blocks with position embedding and embedding norm: what BERT, GPT and both sides of BART share."""

    def __init__(
        self,
        config: ModelConfig,
        rngs: module.Rngs,
        block: type[Block] = Block,
        segments: int = 0,
        embedding_norm: bool = True,
    ):
        """Build the model.

        Args:
          config: settings of the model.
          rngs: random keys.
          block: class of the blocks.
          segments: number of segment embeddings, which the subclass adds to the token vectors.
          embedding_norm: whether the sum of the embeddings is normalized.
        """
        c = self.config = config
        shape = (c.position_offset + c.max_positions, c.token_width)
        axes = ('position', 'embed')
        self.position_embedding = param(rngs, shape, axes, c.init_std) if c.has_position_table else None
        shape = (segments, c.token_width)
        self.segment_embedding = param(rngs, shape, (None, 'embed'), c.init_std) if segments else None
        self.embedding_norm = Norm(c, rngs, c.token_width) if embedding_norm else None
        self.layers = Stack(c, rngs, block)

    def embed(self, x: jax.Array, positions: jax.Array | None, key: jax.Array | None = None) -> jax.Array:
        """Add position embeddings to vectors [B, T, D], then apply norm and dropout.

        Args:
          x: [B, T, D] token vectors.
          positions: [B, T] integers; None means 0, 1, 2, ...
          key: random key of dropout; None disables dropout.

        Returns:
          [B*T, D].
        """
        c = self.config
        if self.position_embedding is not None:
            first, length = c.position_offset, x.shape[1]
            rows = slice(first, first + length) if positions is None else first + positions
            x = x + self.position_embedding[...][rows]
        x = x.astype(c.dtype).reshape(-1, c.token_width)
        return dropout(x if self.embedding_norm is None else self.embedding_norm(x), c.dropout, key)

    def extend(
        self, x: jax.Array, mask: jax.Array, positions: jax.Array, *args: Any
    ) -> tuple[jax.Array, list[Cache]]:
        """Map vectors [B, t, D] of new tokens to last hidden states [B, t, D]; other arguments as in `Stack.extend`."""
        y, cache = self.layers.extend(self.embed(x, positions), mask, positions, *args)
        return y.reshape(x.shape), cache

    def run(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        key: jax.Array | None,
        positions: jax.Array | None = None,
        output_positions: jax.Array | None = None,
        memory: Any = None,
    ) -> tuple[jax.Array, ...]:
        """Map token vectors [B, T, D] to L+1 hidden states [B, T, D].

        `positions` is that of `embed`, except that None restarts them with each document of a packed row; the other
        arguments are those of `Stack`.
        """
        batch, length, _ = x.shape
        if positions is None and isinstance(mask, Mask) and mask.query_documents is not None:
            positions = masks.restart_positions(mask.query_documents)
        else:
            self.config.check_length(length)
        x = self.embed(x, positions, fold_in(key, 0))
        positions = jnp.broadcast_to(jnp.arange(length) if positions is None else positions, (batch, length))
        outputs = self.layers(x, mask, positions, fold_in(key, 1), output_positions, memory)
        return tuple(h.reshape(batch, -1, self.config.width) for h in (x, *outputs))
