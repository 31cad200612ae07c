"""Blocks of a stack, each apart or, for a scan, with stacked parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.core import stacking
from bert_jax.modeling import module
from bert_jax.modeling.blocks import Block
from bert_jax.modeling.config import ModelConfig

# The blocks by layer; or by the name of a layer or range of layers, see `core.stacking`.
Blocks = nnx.List | nnx.Dict


def scanned_layers(config: ModelConfig) -> list[range]:
    """Find the layers that run as a scan.

    The last layer is never among them: it may compute fewer positions, and to take its parameters from a stack would
    copy them in each step.

    Returns:
      A range of layers for each block in the body of the scan: those that this block stands for, whose parameters are
      stacked. Empty if nothing repeats, or without `scan_layers`.
    """
    settings = [config.for_layer(i) for i in range(config.layers)]
    first, period = _find_repetition(settings)
    stop = first + (config.layers - 1 - first) // period * period
    if not config.scan_layers or stop < first + 2 * period:
        return []
    return [range(first + i, stop, period) for i in range(period)]


def _find_repetition(settings: Sequence[Any]) -> tuple[int, int]:
    """Return the first layer from which on the settings repeat, and after how many layers they do.

    If they do not repeat, these are the number of layers and 1.
    """
    n = len(settings)
    found = [
        (first, period)
        for first in range(n)
        for period in range(1, (n - first) // 2 + 1)
        if settings[first : n - period] == settings[first + period :]
    ]
    return min(found, key=sum, default=(n, 1))


def make_blocks(
    config: ModelConfig, rngs: module.Rngs, block: Callable[[ModelConfig, module.Rngs], Block]
) -> Blocks:
    """Create the blocks of all layers, with the same parameters whether or not they are stacked."""
    ranges = scanned_layers(config)
    if not ranges:
        layers: list[Block] = []
        for i in range(config.layers):
            first = config.first_shared_layer(i)
            layers.append(layers[first] if first < i else block(config.for_layer(i), rngs))
        return nnx.List(layers)
    blocks = {str(i): block(config.for_layer(i), rngs) for i in range(ranges[0].start)}
    blocks |= _make_stacked(config, rngs, block, ranges)
    for i in range(ranges[0].stop, config.layers):
        blocks[str(i)] = block(config.for_layer(i), rngs)
    return nnx.Dict(blocks)


def _make_stacked(
    config: ModelConfig,
    rngs: module.Rngs,
    block: Callable[[ModelConfig, module.Rngs], Block],
    ranges: Sequence[range],
) -> dict[str, Block]:
    """Create blocks with stacked parameters in one vectorized call, which compiles faster than one call per layer."""

    def make(rngs: module.Rngs) -> list[Block]:
        return [block(config.for_layer(layers.start), rngs) for layers in ranges]

    def make_states(count: jax.Array) -> list[nnx.State]:
        return [nnx.state(block) for block in make(module.Rngs(rngs.key, count))]

    # Each parameter takes a key, as it would one layer after the other.
    first = rngs.count
    graphs = [nnx.graphdef(block) for block in make(rngs)]
    keys, groups = rngs.count - first, len(ranges[0])
    states = jax.vmap(make_states)(first + keys * jnp.arange(groups))
    rngs.count = first + keys * groups
    stacked = {}
    for layers, graph, state in zip(ranges, graphs, states, strict=True):
        for _, variable in nnx.to_flat_state(state):
            variable.set_metadata(axes=(None, *variable.get_metadata('axes')))
        stacked[stacking.range_name(layers)] = nnx.merge(graph, state)
    return stacked


def unstack_blocks(blocks: Blocks) -> list[Block]:
    """Return the block of each layer."""
    if isinstance(blocks, nnx.List):
        return [*blocks]
    by_layer: dict[int, Block] = {}
    for name, block in blocks.items():
        graph, params = module.split(block)
        for i, layer in enumerate(stacking.layer_paths(name)):
            taken = {k: v[i] for k, v in params.items()} if stacking.is_stacked(name) else params
            by_layer[int(layer)] = module.merge(graph, taken)
    return [by_layer[i] for i in range(len(by_layer))]
