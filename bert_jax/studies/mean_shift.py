"""Moving all hidden states of one layer of an encoder, by the bias that is added last in it."""

import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import module
from bert_jax.modeling.bert import Config


def moved(params: module.Params, model: Config, layer: int, vector: np.ndarray) -> module.Params:
    """Parameters by which every hidden state of `layer`, 0 to L, is moved by `vector` [D].

    Raises:
      UserError: as `bias`.
    """
    if not np.any(vector):
        return params
    name = bias(params, model, layer)
    return {**params, name: params[name] + jnp.asarray(vector, params[name].dtype)}


def bias(params: module.Params, model: Config, layer: int) -> str:
    """The name of the bias that is added last in a layer.

    Raises:
      UserError: if the layer adds none.
    """
    if layer == 0:
        name = 'bert/norm/bias'
    elif layer == model.layers and model.norm == 'pre':
        name = 'bert/layers/final_norm/bias'
    else:
        last = 'mlp/down' if model.norm == 'pre' else 'mlp_norm'
        name = f'bert/layers/blocks/{layer - 1}/{last}/bias'
    if name not in params:
        raise UserError(f'The model has no {name} to move its hidden states by: take one with biases.')
    return name
