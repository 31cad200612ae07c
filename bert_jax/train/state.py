"""The train state: born sharded, a plain pytree."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.core.partitioning import Partitioner, table
from bert_jax.modeling import module


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=['step', 'params', 'opt_state'], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class State:
    """Everything that a step changes and a checkpoint keeps.

    Attributes:
      step: updates done, an int32 scalar.
      params: parameters by path.
      opt_state: of the optax chain.
    """

    step: jax.Array
    params: module.Params
    opt_state: optax.OptState


def _state(step: Any, params: Any, opt_state: Any) -> Any:
    """A `State` whose leaves describe arrays."""
    return State(step, params, opt_state)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is known of a state before it is made.

    Attributes:
      graph: structure of the model.
      shapes: the state with `ShapeDtypeStruct` leaves.
      shardings: the state with `NamedSharding` leaves.
    """

    graph: module.Graph
    shapes: Any
    shardings: Any

    @property
    def abstract(self) -> State:
        """Shapes with their shardings, as a checkpoint is restored into."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self.shapes, self.shardings
        )

    def table(self) -> str:
        return table(self.shardings.params, self.shapes.params)


def layout(
    make: Callable[[module.Rngs], module.Module], tx: optax.GradientTransformation, partitioner: Partitioner
) -> Layout:
    """Shapes and shardings of a state, without making an array."""
    graph, shapes, axes = module.abstract(make)
    params = {name: partitioner.sharding(axes[name], shapes[name].shape, name) for name in shapes}
    opt_shapes = jax.eval_shape(tx.init, shapes)
    opt = optax.tree_map_params(
        tx, lambda _, s: s, opt_shapes, params, transform_non_params=lambda _: partitioner.replicated
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return Layout(graph, _state(step, shapes, opt_shapes), _state(partitioner.replicated, params, opt))


def create(
    make: Callable[[module.Rngs], module.Module], tx: optax.GradientTransformation, layout: Layout, seed: int
) -> State:
    """A new state, drawn on the devices where it will stay."""

    def init(seed: jax.Array) -> State:
        params = module.init(make, jax.random.key(seed))
        return State(jnp.zeros((), jnp.int32), params, tx.init(params))

    return jax.jit(init, out_shardings=layout.shardings)(np.uint32(seed))


def adopt(state: State, params: dict[str, Any], tx: optax.GradientTransformation, layout: Layout) -> State:
    """The state with some parameters replaced, and the optimizer started anew."""
    merged = {name: params.get(name, value) for name, value in state.params.items()}
    opt_state = jax.jit(tx.init, out_shardings=layout.shardings.opt_state)(merged)
    return State(state.step, merged, opt_state)
