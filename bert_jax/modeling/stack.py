"""A stack of transformer blocks, run one by one or as a scan, with optional rematerialization."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import module
from bert_jax.modeling.blocks import Block
from bert_jax.modeling.config import BlockConfig
from bert_jax.modeling.dropout import fold_in
from bert_jax.modeling.layers import Norm
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.relative_bias import RelativeBias


class Stack(nnx.Module):
    """L blocks and, with pre-norm, a final norm; parameters are stored per layer, with or without scan."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs, block: type[Block] = Block, causal: bool = False):
        self.config = config
        self.relative_bias = RelativeBias(config, causal, rngs) if config.relative_buckets else None
        self.blocks = nnx.List([block(config, rngs) for _ in range(config.layers)])
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
          The output [B*T, D] of each block, the last [B*P, D] with `output_positions`; with pre-norm the
          last is normalized.
        """
        if self.relative_bias is not None:
            mask = self.relative_bias(mask, jnp.arange(positions.shape[1]), positions.shape[1])
        graph = module.split(self.blocks[0])[0]

        def run(
            params: module.Params, x: jax.Array, layer: jax.Array, output_positions: jax.Array | None = None
        ) -> jax.Array:
            block = module.merge(graph, params)
            return block(x, mask, positions, fold_in(key, layer), output_positions, memory)

        run = _REMAT[self.config.remat](run)
        params = [module.split(block)[1] for block in self.blocks]
        outputs: list[jax.Array] = []
        # The last block computes fewer positions with `output_positions`, so it cannot be part of the scan.
        same_shape = params if output_positions is None else params[:-1]
        if self.config.scan_layers and same_shape:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *same_shape)

            def step(x: jax.Array, inputs: tuple[module.Params, jax.Array]) -> tuple[jax.Array, jax.Array]:
                y = run(inputs[0], x, inputs[1])
                return y, y

            x, ys = jax.lax.scan(step, x, (stacked, jnp.arange(len(same_shape))))
            outputs.extend(ys)
        for i in range(len(outputs), len(params)):
            x = run(params[i], x, jnp.asarray(i), output_positions if i == len(params) - 1 else None)
            outputs.append(x)
        if self.final_norm is not None:
            outputs[-1] = self.final_norm(outputs[-1])
        return outputs

    def init_cache(self, batch: int, slots: int, memory: Any = None) -> list[Any]:
        """Create a cache per layer with room for `slots` tokens per row; see `DecoderBlock` for `memory`."""
        return [block.init_cache(batch, slots, memory) for block in self.blocks]

    def extend(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: list[Any],
        index: jax.Array,
        memory: Any = None,
    ) -> tuple[jax.Array, list[Any]]:
        """Process t new tokens per row that follow those in the cache, and add them to it.

        Args:
          x: [B*t, D] embeddings of the new tokens.
          mask: [B, 1, t, S] booleans, the cache slots that each new token attends to, its own included.
          positions: [B, t] integers, for rotary embeddings.
          cache: cache of each layer, see `init_cache`.
          index: slot of the first new token.
          memory: mask of the encoder outputs, see `DecoderBlock`.

        Returns:
          The output [B*t, D] of the last layer, normalized with pre-norm, and the new cache.
        """
        if self.relative_bias is not None:
            mask = self.relative_bias(mask, index + jnp.arange(positions.shape[1]), mask.shape[-1])
        new_cache = []
        for block, layer_cache in zip(self.blocks, cache, strict=True):
            x, layer_cache = block.extend(x, mask, positions, layer_cache, index, memory)
            new_cache.append(layer_cache)
        return (x if self.final_norm is None else self.final_norm(x)), new_cache


_REMAT: dict[str, Any] = {
    'none': lambda f: f,
    'dots': functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    'full': jax.checkpoint,
}
