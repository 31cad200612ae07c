"""Pooled vectors of texts: the dense layer that BERT applies to its first token, and means over tokens."""

import jax
import jax.numpy as jnp

from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.heads import PredictionHead
from bert_jax.modeling.layers import Dense, gelu
from bert_jax.modeling.module import Rngs

ACTIVATIONS = {'tanh': jnp.tanh, 'relu': jax.nn.relu, 'gelu': gelu}


def make(config: ModelConfig, rngs: Rngs) -> Dense | PredictionHead:
    """Create the layers that map the vector of a text [M, D] to its pooled vector [M, D], without the activation."""
    if config.prediction_head:
        return PredictionHead(config, rngs)
    sizes = {'embed': config.width}, {'': config.width}
    return Dense(config, *sizes, rngs, use_bias=config.use_bias or config.head_bias)


def mean(hidden: jax.Array, valid: jax.Array | None, num_texts: int = 0) -> jax.Array:
    """Return the means over the tokens of a row, [B, D]; or with `num_texts`, of each text of packed rows, [B, K, D]."""
    if valid is None:
        return hidden.mean(1)
    is_token = (
        valid[:, None] == jnp.arange(1, num_texts + 1)[:, None] if num_texts else valid.astype(bool)[:, None]
    )
    weights = is_token.astype(jnp.float32)
    weights = weights / jnp.maximum(weights.sum(2, keepdims=True), 1)
    means = jnp.einsum('btd,bkt->bkd', hidden.astype(jnp.float32), weights).astype(hidden.dtype)
    return means if num_texts else means[:, 0]
