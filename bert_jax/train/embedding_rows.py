"""Gradients of the token embedding for the tokens of a batch only.

A batch of short texts contains a few hundred different tokens. The gradient of all other rows of the embedding is zero, but
to write, clip and read it takes longer than the rest of a small model's backward pass on a CPU.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.core.partitioning import Partitioner
from bert_jax.modeling import module

Batch = dict[str, jax.Array]


def table_path(task: Any, model_config: Any, partitioner: Partitioner) -> str:
    """Return the path of the token embedding if its gradient can be computed by rows, else an empty string.

    That needs a task whose loss only looks tokens up, and one device: several devices hold parts of the embedding.
    """
    only_embeds_tokens = getattr(task, 'only_embeds_tokens', False)
    return f'{model_config.name}/token_embedding' if only_embeds_tokens and partitioner.mesh.size == 1 else ''


def select(
    params: module.Params, batch: Batch, path: str
) -> tuple[module.Params, Batch, dict[str, jax.Array]]:
    """Reduce the token embedding to the rows of a batch's tokens.

    Args:
      params: parameters that are trained.
      batch: batch with `tokens`, of any shape.
      path: path of the token embedding, or an empty string.

    Returns:
      The parameters, with the embedding [U, D] of the U distinct tokens; the batch, with tokens that are indices of these
      rows; and {path: [U] indices of the rows in the whole embedding, ascending, V in place of missing ones}. If the
      parameters lack the embedding or the batch has more than V / 2 tokens, nothing changes and the dict is empty.
    """
    if path not in params or 2 * batch['tokens'].size > len(params[path]):
        return params, batch, {}
    tokens, table = batch['tokens'], params[path]
    indices, positions = jnp.unique(tokens, return_inverse=True, size=tokens.size, fill_value=len(table))
    rows = table.at[indices].get(mode='clip', indices_are_sorted=True)
    positions = positions.astype(tokens.dtype).reshape(tokens.shape)
    return params | {path: rows}, batch | {'tokens': positions}, {path: indices}
