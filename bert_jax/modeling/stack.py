"""A stack of blocks: one by one or as a scan, with rematerialisation as a choice."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import module
from bert_jax.modeling.blocks import Block
from bert_jax.modeling.config import BlockConfig
from bert_jax.modeling.dropout import fold
from bert_jax.modeling.layers import Norm
from bert_jax.modeling.masks import Mask
from bert_jax.modeling.relative_bias import Relative


class Stack(nnx.Module):
    """L blocks, run one by one or as a scan; the parameters are stored by layer either way."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs, block: type[Block] = Block, causal: bool = False):
        self.config = config
        self.relative = Relative(config, causal, rngs) if config.relative else None
        self.blocks = nnx.List([block(config, rngs) for _ in range(config.layers)])
        self.final_norm = Norm(config, rngs) if config.norm == 'pre' else None

    def __call__(
        self,
        x: jax.Array,
        mask: Mask | jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        at: jax.Array | None = None,
        memory: Any = None,
    ) -> list[jax.Array]:
        """Runs flat activations [B*T, D] through the blocks.

        Args:
          x: [B*T, D].
          mask: see `attend`.
          positions: [B, T] integers, for rotary embeddings.
          key: randomness of dropout, or None.
          at: [B, P], where the last block's output is wanted; None is everywhere.
          memory: for blocks that look at another text, see `DecoderBlock`.

        Returns:
          An array [B*T, D] for each block, its output, the last [B*P, D] with `at`; of pre-norm
          blocks the last is normalised.
        """
        if self.relative is not None:
            mask = self.relative(mask, jnp.arange(positions.shape[1]), positions.shape[1])
        graph = module.split(self.blocks[0])[0]

        def run(
            params: module.Params, x: jax.Array, layer: jax.Array, at: jax.Array | None = None
        ) -> jax.Array:
            return module.merge(graph, params)(x, mask, positions, fold(key, layer), at, memory)

        run = _REMAT[self.config.remat](run)
        layers = [module.split(block)[1] for block in self.blocks]
        outputs: list[jax.Array] = []
        whole = layers if at is None else layers[:-1]
        if self.config.scan and whole:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *whole)

            def body(x: jax.Array, inputs: tuple[module.Params, jax.Array]) -> tuple[jax.Array, jax.Array]:
                y = run(inputs[0], x, inputs[1])
                return y, y

            x, ys = jax.lax.scan(body, x, (stacked, jnp.arange(len(whole))))
            outputs.extend(ys)
        for i in range(len(outputs), len(layers)):
            x = run(layers[i], x, jnp.asarray(i), at if i == len(layers) - 1 else None)
            outputs.append(x)
        if self.final_norm is not None:
            outputs[-1] = self.final_norm(outputs[-1])
        return outputs

    def empty_cache(self, batch: int, slots: int, memory: Any = None) -> list[Any]:
        """For `slots` tokens of each of `batch` rows, layer by layer; `memory` as of `DecoderBlock`."""
        return [block.empty_cache(batch, slots, memory) for block in self.blocks]

    def extend(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        cache: list[Any],
        index: jax.Array,
        memory: Any = None,
    ) -> tuple[jax.Array, list[Any]]:
        """Runs t tokens that go on from those in the cache.

        Args:
          x: [B*t, D].
          mask: [B, 1, t, S], which slots each of them sees, its own included.
          positions: [B, t] integers, for rotary embeddings.
          cache: of each layer.
          index: the slot of the first of them.
          memory: see `DecoderBlock`.

        Returns:
          The last layer's output [B*t, D], normalised of pre-norm blocks, and the cache with the tokens in it.
        """
        if self.relative is not None:
            mask = self.relative(mask, index + jnp.arange(positions.shape[1]), mask.shape[-1])
        after = []
        for block, kept in zip(self.blocks, cache, strict=True):
            x, kept = block.extend(x, mask, positions, kept, index, memory)
            after.append(kept)
        return (x if self.final_norm is None else self.final_norm(x)), after


_REMAT: dict[str, Any] = {
    'none': lambda f: f,
    'dots': functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    'full': jax.checkpoint,
}
