"""Shift the hidden states of one encoder layer by adding a vector to the bias that the layer adds last."""

import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import module
from bert_jax.modeling.bert import Config


def shift_layer(params: module.Params, model: Config, layer: int, vector: np.ndarray) -> module.Params:
    """Return parameters that add `vector` [D] to every hidden state of `layer`, 0 (embeddings) to L.

    Raises:
      UserError: if the layer has no bias to add the vector to (see `last_bias`).
    """
    if not np.any(vector):
        return params
    name = last_bias(params, model, layer)
    return {**params, name: params[name] + jnp.asarray(vector, params[name].dtype)}


def last_bias(params: module.Params, model: Config, layer: int) -> str:
    """Return the name of the bias that a layer adds last to its hidden states.

    Raises:
      UserError: if the layer has no such bias.
    """
    if layer == 0:
        name = f'bert/embedding_{"projection" if model.embedding_width else "norm"}/bias'
    elif layer == model.layers and model.norm_placement == 'pre':
        name = 'bert/layers/final_norm/bias'
    else:
        last = 'mlp/down' if model.norm_placement == 'pre' else 'mlp_norm'
        name = f'bert/layers/blocks/{layer - 1}/{last}/bias'
    if layer and model.layer_groups:
        raise UserError(
            f'Layer {layer} shares its parameters with others (model.layer_groups={model.layer_groups}), so it cannot be '
            'shifted alone. Use a model whose layers are separate.'
        )
    if name not in params:
        raise UserError(
            f'This model lacks the bias {name}, through which hidden states are shifted. Use a model with biases.'
        )
    return name
