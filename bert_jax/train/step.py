"""The train step, a pure function of state and batch, and its compilation for a mesh."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax import optim
from bert_jax.core import partitioning
from bert_jax.core.metrics import Mean
from bert_jax.core.partitioning import Partitioner
from bert_jax.modeling import module
from bert_jax.train import embedding_rows
from bert_jax.train.state import Layout, State, make_layout

Batch = dict[str, jax.Array]
Metrics = dict[str, Mean]
# JAX's names of the values of `train.prng`.
_PRNG = {'threefry': 'threefry2x32', 'rbg': 'rbg'}


def train_step(
    state: State,
    batch: Batch,
    seed: jax.Array,
    *,
    task: Any,
    layout: Layout,
    schedule: optax.Schedule,
    dropout: bool,
    prng: str,
    accumulation_steps: int,
    table: str = '',
) -> tuple[State, Metrics]:
    """Compute loss and gradients of a batch and update the trained parameters.

    Only the trained parameters are differentiated, so XLA computes no gradient that only frozen parameters need. The
    metric `grad_norm` is the norm of all gradients before clipping.

    The key for dropout is `fold_in(seed, step)`. With `accumulation_steps` > 1, the batch is processed in parts, but the
    gradient is that of the mean over the whole batch.

    Args:
      state: state before the update.
      batch: global batch.
      seed: random seed of the run.
      task: task whose loss is minimized.
      layout: structure of the model, and the optimizer.
      schedule: learning rate by step, for the metrics.
      dropout: whether the model uses dropout.
      prng: random generator of dropout, see `TrainConfig`.
      accumulation_steps: number of parts of a batch.
      table: path of the token embedding if its gradient is computed by rows, see `embedding_rows`.

    Returns:
      The state after the update, and metrics.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl=_PRNG[prng]), state.step) if dropout else None
    trained = layout.select_trained(state.params)

    def loss(
        trained: module.Params, part: Batch, key: jax.Array | None, weights: dict[str, jax.Array]
    ) -> tuple[jax.Array, tuple[Metrics, Metrics]]:
        result = task.loss(module.merge(layout.graph, state.params | trained), part, key)
        means = (t.total / weights.get(k, t.weight) for k, t in result.losses.items())
        return sum(means, jnp.float32(0)), (result.losses, result.metrics)

    selected, part, rows = embedding_rows.select(trained, batch, table if accumulation_steps == 1 else '')
    if accumulation_steps == 1:
        grads, (terms, metrics) = jax.grad(loss, has_aux=True)(selected, part, key, {})
    else:
        # The weights depend only on the batch, so the compiler removes the rest of this forward pass.
        _, (terms, _) = loss(trained, batch, None, {})
        weights = {k: t.weight for k, t in terms.items()}
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1), batch)

        def add_part(grads: module.Params, inputs: tuple[Batch, jax.Array]) -> tuple[module.Params, Any]:
            part, i = inputs
            part_key = None if key is None else jax.random.fold_in(key, i)
            more, aux = jax.grad(loss, has_aux=True)(trained, part, part_key, weights)
            return jax.tree.map(jnp.add, grads, more), aux

        zeros = jax.tree.map(jnp.zeros_like, trained)
        grads, aux = jax.lax.scan(add_part, zeros, (parts, jnp.arange(accumulation_steps)))
        terms, metrics = jax.tree.map(lambda x: x.sum(0), aux)
    trained, opt_state = apply_gradients(layout.tx, grads, state.opt_state, trained, rows)
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
    return State(state.step + 1, state.params | trained, opt_state), metrics


def apply_gradients(
    tx: optax.GradientTransformation,
    grads: module.Params,
    opt_state: Any,
    params: module.Params,
    rows: Mapping[str, jax.Array],
) -> tuple[Any, Any]:
    """Update parameters and optimizer state with the gradients; `rows` as in `optim.scale_by_adam`."""
    with jax.numpy_dtype_promotion('standard'):  # Optax mixes its integer counts with floats
        updates, opt_state = tx.update(grads, opt_state, params, rows=rows)
        return optax.apply_updates(params, updates), opt_state


def make_train_step(
    task: Any,
    model_config: Any,
    optim_config: optim.OptimConfig,
    total: int,
    partitioner: Partitioner,
    seed: int = 0,
    accumulation_steps: int = 1,
    prng: str = 'threefry',
    **units: Any,
) -> tuple[Layout, functools.partial[tuple[State, Metrics]]]:
    """Lay out the state of a run, and jit `train_step` with explicit shardings and a donated state.

    Args:
      task: task whose loss is minimized.
      model_config: architecture of the model.
      optim_config: optimizer and learning rate schedule.
      total: steps of the run.
      partitioner: mesh.
      seed: random seed of the run. It is an argument of the program, so that all seeds share one compiled program.
      accumulation_steps: number of parts of a batch.
      prng: random generator of dropout, see `TrainConfig`.
      **units: `batch_size` and `examples`, for durations in epochs or examples.

    Returns:
      The layout, and a function of state and batch.
    """
    make_model = functools.partial(task.build_model, model_config)
    layout = make_layout(make_model, optim_config, total, partitioner, **units)
    step: Any = functools.partial(
        train_step,
        task=task,
        layout=layout,
        schedule=optim.make_schedule(optim_config, total, **units),
        dropout=model_config.dropout > 0 or model_config.attention_dropout > 0,
        prng=prng,
        accumulation_steps=accumulation_steps,
        table=embedding_rows.table_path(task, model_config, partitioner),
    )

    def traced(seed: jax.Array, state: State, batch: Batch) -> tuple[State, Metrics]:
        with partitioning.use(partitioner):
            return step(state, batch, seed)

    jitted = jax.jit(
        traced,
        in_shardings=(partitioner.replicated, layout.shardings, partitioner.batch),
        out_shardings=(layout.shardings, partitioner.replicated),
        donate_argnums=1,
    )
    return layout, functools.partial(jitted, np.uint32(seed))
