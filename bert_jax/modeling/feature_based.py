"""Token classification with features of a frozen model (Devlin et al. 2019, section 5.3)."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.dropout import dropout, fold_in
from bert_jax.modeling.heads import Encoder, Output, head_logits
from bert_jax.modeling.layers import Dense
from bert_jax.modeling.lstm import BiLstm
from bert_jax.modeling.module import Rngs


class FeatureBasedTagger(Encoder):
    """Classification of tokens by a two-layer BiLSTM on hidden states of a frozen model (table 7 of the BERT paper).

    The base model has no dropout and gets no gradient. The sums over layers are weighted by a softmax over
    learned layer weights, times a learned factor gamma (Peters et al. 2018, equation 1).
    """

    def __init__(self, config: ModelConfig, classes: int, features: str, lstm_width: int, rngs: Rngs):
        """Build the model.

        Args:
          config: settings of the base model.
          classes: number of classes.
          features: hidden states to use: 'embeddings', 'second_to_last', 'last', 'sum_last_four', 'sum_all'
            or 'concat_last_four'.
          lstm_width: width of the LSTM in each direction; 0 uses the model width.
          rngs: random keys.
        """
        super().__init__(config, rngs)
        self.features = features
        summed = {'sum_last_four': min(4, config.layers), 'sum_all': config.layers}.get(features, 0)
        self.layer_weights = nnx.Param(jnp.zeros(summed), axes=(None,)) if summed else None
        self.gamma = nnx.Param(jnp.ones(1), axes=(None,)) if summed else None
        concatenated = min(4, config.layers) if features == 'concat_last_four' else 1
        lstm_width = lstm_width or config.width
        self.lstm = BiLstm(config, concatenated * config.width, lstm_width, 2, rngs)
        self.classifier = Dense(config, {'': 2 * lstm_width}, {'': classes}, rngs)

    def _encoder_key(self, key: jax.Array | None) -> None:
        return None

    def _apply_head(self, out: Output, valid: jax.Array | None, key: jax.Array | None) -> Output:
        x = self._select_features(jax.lax.stop_gradient(out.hidden_states))
        valid = jnp.ones(x.shape[:2], bool) if valid is None else valid
        x = self.lstm(dropout(x, self.config.dropout, fold_in(key, 0)), valid)
        x = dropout(x, self.config.dropout, fold_in(key, 1))
        return Output(out.hidden_states, logits=head_logits(self.classifier, x))

    def _select_features(self, hidden: tuple[jax.Array, ...]) -> jax.Array:
        """Combine L+1 hidden states [B, T, D] into the input of the LSTM."""
        if self.layer_weights is not None and self.gamma is not None:
            weights = jax.nn.softmax(self.layer_weights[...]) * self.gamma[...]
            pairs = zip(weights, hidden[-len(weights) :], strict=True)
            # In float32, as are the gradients of the weights, which are sums over all positions.
            terms = (weight * h.astype(jnp.float32) for weight, h in pairs)
            return functools.reduce(jnp.add, terms).astype(hidden[-1].dtype)
        if self.features == 'concat_last_four':
            return jnp.concatenate(hidden[1:][-4:], -1)
        return hidden[{'embeddings': 0, 'second_to_last': -2, 'last': -1}[self.features]]
