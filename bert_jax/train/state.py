"""The train state (step, parameters and optimizer state) and its layout on the devices."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax import optim
from bert_jax.core.partitioning import Partitioner, format_parameters
from bert_jax.modeling import module

MakeModel = Callable[[module.Rngs], module.Module]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything that a train step updates and a checkpoint stores.

    Attributes:
      step: number of updates, an int32 scalar.
      params: parameters by path.
      opt_state: state of the Optax chain, which updates the trained parameters.
    """

    step: jax.Array
    params: module.Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class Layout:
    """Structure, shapes and shardings of a state that need not exist yet.

    Attributes:
      make_model: creates the model.
      tx: the optimizer of the trained parameters.
      trained: paths of the parameters that are trained.
      graph: structure of the model.
      shapes: state with `ShapeDtypeStruct` leaves.
      shardings: state with `NamedSharding` leaves.
    """

    make_model: MakeModel
    tx: optax.GradientTransformation
    trained: frozenset[str]
    graph: module.Graph
    shapes: Any
    shardings: Any

    @property
    def abstract(self) -> State:
        """The state with `ShapeDtypeStruct` leaves that have shardings, the target for restoring a checkpoint."""
        return jax.tree.map(lambda x, s: x.update(sharding=s), self.shapes, self.shardings)

    @property
    def num_params(self) -> int:
        return count_params(self.shapes.params)

    @property
    def num_trained_params(self) -> int:
        return count_params(self.select_trained(self.shapes.params))

    def select_trained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that are trained, without the frozen ones."""
        return {name: value for name, value in params.items() if name in self.trained}

    def format_parameters(self) -> str:
        return format_parameters(self.shardings.params, self.shapes.params)


def count_params(params: Mapping[str, Any]) -> int:
    """Return the number of entries of all parameters."""
    return sum(math.prod(x.shape) for x in params.values())


def make_layout(
    make_model: MakeModel, config: optim.OptimConfig, total: int, partitioner: Partitioner, **units: Any
) -> Layout:
    """Compute shapes and shardings of a state without allocating arrays.

    Args:
      make_model: creates the model.
      config: optimizer and learning-rate schedule.
      total: steps of the run.
      partitioner: mesh and rules that determine the shardings.
      **units: `batch_size` and `examples`, for durations in epochs or examples.

    Raises:
      UserError: if a prefix in `config.frozen` matches no parameter, or a parameter cannot be sharded.
    """
    graph, shapes, axes = module.abstract(make_model)
    tx = optim.make_optimizer(config, total, module.undecayed(graph, shapes), axes, **units)
    trained = optim.trained_paths(config, shapes)
    params = {name: partitioner.sharding(axes[name], shapes[name].shape, name) for name in shapes}
    opt_shapes = jax.eval_shape(tx.init, {name: shapes[name] for name in trained})

    def place(part: Any) -> Any:
        return {name: params[name] for name in part} if isinstance(part, dict) else partitioner.replicated

    # Each dict in the state of the optimizer holds moments of all or some parameters, by path.
    opt = jax.tree.map(place, opt_shapes, is_leaf=lambda part: isinstance(part, dict))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    make_state: Any = State  # its annotations name arrays, not shapes and shardings
    state_shapes = make_state(step, shapes, opt_shapes)
    shardings = make_state(partitioner.replicated, params, opt)
    return Layout(make_model, tx, trained, graph, state_shapes, shardings)


def create(layout: Layout, seed: int) -> State:
    """Initialize a state randomly, each part on the device that will hold it."""

    def init(seed: jax.Array) -> State:
        params = module.init(layout.make_model, jax.random.key(seed))
        return State(jnp.zeros((), jnp.int32), params, layout.tx.init(layout.select_trained(params)))

    return jax.jit(init, out_shardings=layout.shardings)(np.uint32(seed))


def replace_params(state: State, params: dict[str, Any], layout: Layout) -> State:
    """Replace some parameters of a state and reset its optimizer."""
    merged = {name: params.get(name, value) for name, value in state.params.items()}
    init_optimizer = jax.jit(layout.tx.init, out_shardings=layout.shardings.opt_state)
    opt_state = init_optimizer(layout.select_trained(merged))
    return State(state.step, merged, opt_state)
