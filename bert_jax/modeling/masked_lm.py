"""The masked-LM head of BERT (Devlin et al. 2019, section 3.1) and of EuroBERT."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.heads import PredictionHead
from bert_jax.modeling.layers import token_embedding
from bert_jax.modeling.module import Bias, Rngs


class MaskedLM(PredictionHead):
    """Masked-LM head: a prediction head, then the token embedding or an output embedding, and a bias."""

    def __init__(self, config: Any, rngs: Rngs):
        self.has_transform = config.masked_lm_transform
        if self.has_transform:
            super().__init__(config, rngs, config.token_width)
        self.output_embedding = None if config.tied_embeddings else token_embedding(config, rngs)
        has_bias = self.has_transform or config.use_bias
        self.bias = Bias(jnp.zeros(config.padded_vocab), axes=('vocab',)) if has_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) if self.has_transform else x

    def table_and_bias(self, tied: nnx.Param) -> tuple[nnx.Param, jax.Array | None]:
        """Return the output embedding [V, D], which may be the token embedding `tied`, and the output bias [V]."""
        bias = None if self.bias is None else self.bias[...]
        return (tied if self.output_embedding is None else self.output_embedding), bias
