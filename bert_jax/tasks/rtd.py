"""Replaced-token detection (ELECTRA, Clark et al. 2020, arXiv 2003.10555).

A generator predicts masked tokens, and samples from its predictions take their place. A discriminator, the encoder that is
pretrained, says for each token whether it was replaced. A sample that equals the original token counts as original.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import Mean, mean
from bert_jax.data.pipeline import Batch
from bert_jax.modeling import bert, replaced_tokens
from bert_jax.modeling.dropout import fold_in
from bert_jax.modeling.losses import binary_cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.modeling.replaced_tokens import ReplacedTokenDetection, Sharing
from bert_jax.tasks import TaskOutput, attention_size, mlm, row_weight, token_output


@dataclasses.dataclass(frozen=True)
class Config(mlm.Config):
    """Settings of `mlm` for the generator, whose masked tokens are all [MASK], and those of the two models.

    The paper masks 15 % of the tokens, all by [MASK] (section 2). Its code keeps 15 % of them as they are, which is
    task.mask_fraction=0.85. There is no second objective.

    Attributes:
      generator_size: width, number of heads and feed-forward width of the generator, as a share of those of the
        discriminator, which is the `model` section.
      generator_layers: number of layers of the generator; 0 is that of the discriminator.
      discriminator_weight: factor of the discriminator's loss in the sum of the two losses.
      embedding_sharing: token and position embeddings of the discriminator: those of the generator, with the gradients of
        both losses ('shared'); those of the generator without a gradient, plus an offset that is learned ('disentangled',
        He et al. 2021, arXiv 2111.09543, section 3); or its own ('none').
    """

    name: str = 'rtd'
    mask_fraction: float = 1.0
    random_fraction: float = 0.0
    sentence_objective: Literal['none'] = 'none'
    generator_size: float = 0.25
    generator_layers: int = 0
    discriminator_weight: float = 50.0
    embedding_sharing: Sharing = 'shared'

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 'task', 1e-3, 1, 'generator_size')
        check_range(self, 'task', 0, math.inf, 'generator_layers', 'discriminator_weight')
        if self.diffusion:
            raise UserError('task.name=rtd does not support task.diffusion=true. Set it to false.')

    @property
    def masked_lm(self) -> mlm.Config:
        """Settings of the masked language model that the generator is."""
        names = {field.name for field in dataclasses.fields(mlm.Config)} - {'name'}
        return mlm.Config(**{name: getattr(self, name) for name in names})

    def generator(self, config: bert.Config) -> bert.Config:
        """Return the architecture of the generator for a discriminator with these settings."""
        return replaced_tokens.generator_config(
            config, self.generator_size, self.generator_layers, self.embedding_sharing
        )


class Task(mlm.Task):
    """Joint training of a generator and a discriminator.

    The random numbers with which tokens are sampled are part of an example, like the masked positions. So in an evaluation
    they depend only on the seed and the row, and two evaluations of a model give the same scores. The code of the paper adds
    Gumbel noise to the logits, a random number for each entry of the vocabulary; the distribution is the same.
    """

    config: Config

    def example(self, packed: np.ndarray, rng: np.random.Generator, rate: float | None = None) -> Batch:
        batch = super().example(packed, rng, rate)
        return batch | {'sampling_noise': rng.random(batch['positions'].shape, np.float32)}

    def build_model(self, model_config: bert.Config, rngs: Rngs) -> ReplacedTokenDetection:  # type: ignore[override]
        generator = self.config.generator(model_config)
        return ReplacedTokenDetection(model_config, generator, self.config.embedding_sharing, rngs)

    def architectures(self, model_config: bert.Config) -> Sequence[bert.Config]:
        return model_config, self.config.generator(model_config)

    def loss(self, model: Any, batch: Batch, key: jax.Array | None) -> TaskOutput:
        """Compute the losses of both models.

        As in the code of the paper, the discriminator's loss is the mean over all tokens but padding, [CLS] and [SEP]
        included, although these are never replaced. The training loss is the sum of mlm_loss and weighted_rtd_loss, which
        is rtd_loss times `task.discriminator_weight`.
        """
        encoded = self.encode(model.generator, batch, fold_in(key, 0), batch['positions'])
        hidden = encoded.hidden_states[-1][:, 1:]
        losses, correct = model.generator.masked_loss(hidden, batch['labels'])
        generated = token_output('mlm', losses, correct, batch, self.corpora)
        logits = model.generator.masked_lm_logits(jax.lax.stop_gradient(hidden))
        samples = replaced_tokens.sample_tokens(logits, batch['sampling_noise'])
        tokens, is_replaced = replace_tokens(batch, samples)
        logits = model(tokens, batch['segments'], batch['valid'], fold_in(key, 1)).logits
        detected = self._detection_output(logits, is_replaced, batch)
        return TaskOutput(
            generated.losses | detected.losses, generated.metrics | detected.metrics, generated.outputs
        )

    def _detection_output(self, logits: jax.Array, is_replaced: jax.Array, batch: Batch) -> TaskOutput:
        """Compute loss and metrics of the discriminator from its logits [B, T] and from its labels [B, T]."""
        weights = batch['valid'].astype(bool).astype(jnp.float32)
        losses, is_detected = binary_cross_entropy(logits, is_replaced), logits > 0
        counted = batch | {'weights': weights}
        output = token_output('rtd', losses, is_detected == is_replaced, counted, self.corpora)
        loss = output.losses['rtd_loss']
        weights = weights * row_weight(batch)[:, None]
        metrics = {
            'rtd_loss': loss,
            'replaced_share': mean(is_replaced, weights),
            'replaced_accuracy': mean(is_detected, weights * is_replaced.astype(jnp.float32)),
            'original_accuracy': mean(~is_detected, weights * (~is_replaced).astype(jnp.float32)),
        }
        weighted = Mean(self.config.discriminator_weight * loss.total, loss.weight)
        return TaskOutput({'weighted_rtd_loss': weighted}, output.metrics | metrics, {})

    def flops(self, model_config: bert.Config, batch: Batch) -> float:
        tokens, length = attention_size(batch['valid'])
        detector = 2 * tokens * model_config.width * (model_config.width + 1)
        generator = super().flops(self.config.generator(model_config), batch)
        return generator + model_config.block_flops(tokens, length) + detector


def replace_tokens(batch: Batch, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Put samples in the place of the masked tokens.

    Args:
      batch: batch with the masked `tokens` [B, T], and with `positions`, `labels` and `weights` [B, P].
      samples: [B, P] token ids.

    Returns:
      [B, T] tokens, and [B, T] booleans: whether a token differs from the original one.
    """
    tokens = batch['tokens']
    # Positions that only fill up the row are beyond its end, where nothing is written.
    positions = jnp.where(batch['weights'] > 0, batch['positions'], tokens.shape[1])
    put = jax.vmap(lambda row, at, values: row.at[at].set(values, mode='drop'))
    is_replaced = put(jnp.zeros(tokens.shape, bool), positions, samples != batch['labels'])
    return put(tokens, positions, samples), is_replaced
