"""The train step, a pure function of state and batch, and its compilation for a mesh."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.core import partitioning
from bert_jax.core.metrics import Mean
from bert_jax.core.partitioning import Partitioner
from bert_jax.modeling import module
from bert_jax.train.state import Layout, State

Batch = dict[str, jax.Array]
Metrics = dict[str, Mean]


def train_step(
    state: State,
    batch: Batch,
    seed: jax.Array,
    *,
    task: Any,
    graph: module.Graph,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    dropout: bool,
    accumulation_steps: int,
) -> tuple[State, Metrics]:
    """Compute loss and gradients of a batch and update the parameters.

    The key for dropout is `fold_in(seed, step)`. With `accumulation_steps` > 1, the batch is processed in parts. The
    gradient is still that of the mean over the whole batch, even if the parts have different weights.

    Args:
      state: state before the update.
      batch: global batch.
      seed: random seed of the run.
      task: task, whose loss is minimized.
      graph: structure of the model.
      tx: optimizer.
      schedule: learning rate by step, for the metrics.
      dropout: whether the model uses dropout.
      accumulation_steps: number of parts of a batch.

    Returns:
      The state after the update, and metrics.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step) if dropout else None

    def forward(
        params: module.Params, part: Batch, key: jax.Array | None
    ) -> tuple[dict[str, Mean], dict[str, Mean]]:
        result = task.loss(module.merge(graph, params), part, key)
        return result.losses, result.metrics

    def loss(
        params: module.Params, part: Batch, key: jax.Array | None, weights: dict[str, jax.Array]
    ) -> tuple[jax.Array, tuple[dict[str, Mean], dict[str, Mean]]]:
        terms, metrics = forward(params, part, key)
        return sum((t.total / weights.get(k, t.weight) for k, t in terms.items()), jnp.float32(0)), (
            terms,
            metrics,
        )

    if accumulation_steps == 1:
        grads, (terms, metrics) = jax.grad(loss, has_aux=True)(state.params, batch, key, {})
    else:
        # The weights depend only on the batch, so the compiler removes the rest of this forward pass.
        weights = {k: t.weight for k, t in forward(state.params, batch, None)[0].items()}
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1), batch)

        def add_part(grads: module.Params, inputs: tuple[Batch, jax.Array]) -> tuple[module.Params, Any]:
            part, i = inputs
            part_key = None if key is None else jax.random.fold_in(key, i)
            more, aux = jax.grad(loss, has_aux=True)(state.params, part, part_key, weights)
            return jax.tree.map(jnp.add, grads, more), aux

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        grads, aux = jax.lax.scan(add_part, zeros, (parts, jnp.arange(accumulation_steps)))
        terms, metrics = jax.tree.map(lambda x: x.sum(0), aux)
    params, opt_state = apply_gradients(tx, grads, state.opt_state, state.params)
    with jax.numpy_dtype_promotion('standard'):
        learning_rate = jnp.asarray(schedule(state.step), jnp.float32)
    one = jnp.float32(1)
    total = sum((t.value() for t in terms.values()), jnp.float32(0))
    metrics = {
        'loss': Mean(total, one),
        **terms,
        **metrics,
        'grad_norm': Mean(optax.global_norm(grads), one),
        'learning_rate': Mean(learning_rate, one),
    }
    if 'stop' in batch:
        metrics['stop'] = Mean(batch['stop'].sum(), one)
    return State(state.step + 1, params, opt_state), metrics


def apply_gradients(
    tx: optax.GradientTransformation, grads: module.Params, opt_state: Any, params: module.Params
) -> tuple[Any, Any]:
    """Update parameters and optimizer state with the gradients."""
    with jax.numpy_dtype_promotion('standard'):  # Optax mixes its integer counts with floats
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def jit_train_step(
    task: Any,
    layout: Layout,
    partitioner: Partitioner,
    tx: optax.GradientTransformation,
    seed: int,
    **options: Any,
) -> functools.partial[tuple[State, Metrics]]:
    """Compile `train_step` with explicit shardings and a donated state.

    Args:
      task: task, whose loss is minimized.
      layout: structure and shardings of the state.
      partitioner: mesh.
      tx: optimizer.
      seed: random seed of the run. It is an argument of the program, so that all seeds share one compiled program.
      **options: other keyword arguments of `train_step`.

    Returns:
      A function of state and batch.
    """
    step: Any = functools.partial(train_step, task=task, graph=layout.graph, tx=tx, **options)

    def traced(seed: jax.Array, state: State, batch: Batch) -> tuple[State, Metrics]:
        with partitioning.use(partitioner):
            return step(state, batch, seed)

    jitted = jax.jit(
        traced,
        in_shardings=(partitioner.replicated, layout.shardings, partitioner.batch),
        out_shardings=(layout.shardings, partitioner.replicated),
        donate_argnums=1,
    )
    return functools.partial(jitted, np.uint32(seed))
