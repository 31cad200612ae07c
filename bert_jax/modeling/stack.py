"""A stack of blocks: one by one or as a scan, with rematerialisation as a choice."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling import module
from bert_jax.modeling.dropout import fold
from bert_jax.modeling.layers import Block, BlockConfig, Norm


class Stack(nnx.Module):
    """L blocks, run one by one or as a scan; the parameters are stored by layer either way."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        self.config = config
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.layers)])
        self.final_norm = Norm(config, rngs) if config.norm == 'pre' else None

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        positions: jax.Array,
        key: jax.Array | None,
        at: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Runs flat activations [B*T, D] through the blocks.

        Args:
          x: [B*T, D].
          mask: see `attend`.
          positions: [B, T] integers, for rotary embeddings.
          key: randomness of dropout, or None.
          at: [B, P], where the last block's output is wanted; None is everywhere. The mask must then
            be the same for every query.

        Returns:
          L arrays [B*T, D], the output of each block, the last [B*P, D] with `at`; of pre-norm
          blocks the last is normalised.
        """
        graph = module.split(self.blocks[0])[0]

        def run(
            params: module.Params, x: jax.Array, layer: jax.Array, at: jax.Array | None = None
        ) -> jax.Array:
            return module.merge(graph, params)(x, mask, positions, fold(key, layer), at)

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


_REMAT: dict[str, Any] = {
    'none': lambda f: f,
    'dots': functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    'full': jax.checkpoint,
}
