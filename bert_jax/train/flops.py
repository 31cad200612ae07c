"""Count the floating-point operations (FLOP) of a train step, for the utilization of the devices (MFU)."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice

from bert_jax.core import partitioning, stacking
from bert_jax.modeling import module
from bert_jax.train.state import Layout


def training_ratio(task: Any, model_config: Any, layout: Layout, batch: Mapping[str, Any]) -> float:
    """Return the FLOP of a train step divided by those of its forward pass, which `task.flops` counts.

    The backward pass has two matrix products for each one of the forward pass: one computes the gradient of the
    weights, the other that of the input. So the ratio is 3 if all parameters are trained. A frozen weight needs no
    gradient, and neither does an input that depends on no trained parameter, so the ratio is close to 1 for a small
    head on a frozen encoder. With frozen parameters, the matrix products of the differentiated program are counted.

    What `model.remat` recomputes does not count (Chowdhery et al. 2022, appendix B).

    Args:
      task: task that is trained.
      model_config: architecture of the model.
      layout: shapes of all parameters, and which of them are trained.
      batch: NumPy arrays of a batch of any size.
    """
    if len(layout.trained) == len(layout.shapes.params):
        return 3.0
    # These settings do not change the loss. They keep recomputation, the scan over layers and
    # attention kernels out of the jaxpr, so that it has exactly the products that training needs.
    plain = {'remat': 'none', 'scan_layers': False, 'attention_implementation': 'xla'}
    make_model = functools.partial(task.build_model, dataclasses.replace(model_config, **plain))
    graph = module.abstract(make_model)[0]

    def loss(trained: Any, params: Any, batch: Any) -> jax.Array:
        terms = task.loss(module.merge(graph, params | trained), batch, None).losses
        return sum((term.value() for term in terms.values()), jnp.float32(0))

    params = layout.shapes.params
    arguments = stacking.unstack(layout.select_trained(params)), stacking.unstack(params), batch
    # Nothing runs, so the log need not say what an accelerator would store.
    device = AbstractDevice('cpu', None, 'cpu')
    with partitioning.use(partitioning.make_abstract(partitioning.MeshConfig(), 1, device)):
        forward, step = (matmul_flops(jax.make_jaxpr(f)(*arguments).jaxpr) for f in (loss, jax.grad(loss)))
    return step / forward


def matmul_flops(jaxpr: Any) -> float:
    """Count the FLOP of all matrix products in a jaxpr, including those in its loops."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[i] for i in contracted)
        repeats = equation.params['length'] if equation.primitive.name == 'scan' else 1
        total += repeats * sum(map(matmul_flops, _inner_jaxprs(equation)))
    return total


def _inner_jaxprs(equation: Any) -> Iterator[Any]:
    """Yield the jaxprs among the parameters of an equation, such as the body of a loop."""
    for value in equation.params.values():
        for inner in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(inner, 'jaxpr', inner)
            if hasattr(inner, 'eqns'):
                yield inner
