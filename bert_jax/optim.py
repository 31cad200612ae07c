"""Schedules and optimizers, as optax chains."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax.core.cadence import duration
from bert_jax.core.config import within
from bert_jax.core.errors import UserError

_NO_DECAY = re.compile(r'(^|/)(bias|scale)$')


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate.

    Attributes:
      name: AdamW (Loshchilov & Hutter 2019) or LAMB (You et al. 2020).
      learning_rate: at the top of the schedule.
      schedule: after the warmup 'linear' or 'cosine' to `end` over the rest of the run, 'wsd'
        (warmup, stable, decay: constant, then linear to `end` over `decay`), or 'constant'.
      warmup: a duration, linear from 0.
      decay: a duration, the last part of 'wsd'.
      end: final learning rate as a share of the highest.
      b1, b2, eps: of Adam.
      bias_correction: as Adam was published (Kingma & Ba 2015); the original BERT has none.
      weight_decay: of everything but biases and norms.
      clip: largest global norm of the gradient; 0 does not clip.
      frozen: parameters whose path begins with one of these stay as they are, such as 'bert/'.
    """

    name: Literal['adamw', 'lamb'] = 'adamw'
    learning_rate: float = 1e-4
    schedule: Literal['linear', 'cosine', 'wsd', 'constant'] = 'linear'
    warmup: int | float | str = 0.1
    decay: int | float | str = 0.2
    end: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = True
    weight_decay: float = 0.01
    clip: float = 1.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        within(self, 'optim', 0, math.inf, 'learning_rate', 'eps', 'weight_decay', 'clip')
        within(self, 'optim', 0, 1, 'end', 'b1', 'b2')


def schedule(config: OptimConfig, total: int, **units: int) -> optax.Schedule:
    """The learning rate as a function of the step, 0 to `total`."""
    peak, end = config.learning_rate, config.learning_rate * config.end
    warmup = duration(config.warmup, total=total, **units)
    if warmup >= total > 0:
        raise UserError(f'optim.warmup is {warmup} steps, but the whole run has {total}: make it shorter.')
    rest = max(1, total - warmup)
    after = {
        'linear': lambda: optax.linear_schedule(peak, end, rest),
        'cosine': lambda: optax.cosine_decay_schedule(peak, rest, config.end),
        'constant': lambda: optax.constant_schedule(peak),
        'wsd': lambda: _stable_then_decay(peak, end, rest, duration(config.decay, total=total, **units)),
    }[config.schedule]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0, peak, warmup), after], [warmup])


def _stable_then_decay(peak: float, end: float, steps: int, decay: int) -> optax.Schedule:
    if decay > steps:
        raise UserError(
            f'optim.decay is {decay} steps, but {steps} are left after the warmup: make it shorter.'
        )
    return optax.linear_schedule(peak, end, max(1, decay), transition_begin=steps - decay)


def decays(params: Mapping[str, Any]) -> dict[str, bool]:
    """Which parameters, by path, weight decay applies to: all but biases and norm scales."""
    return {name: not _NO_DECAY.search(name) for name in params}


class AdamState(NamedTuple):
    """Moments of Adam."""

    mu: optax.Updates
    nu: optax.Updates


def scale_by_adam(b1: float, b2: float, eps: float, bias_correction: bool) -> optax.GradientTransformation:
    """Adam, with the bias correction as a choice: BERT's own optimizer has none."""
    if bias_correction:
        return optax.scale_by_adam(b1, b2, eps)

    def init(params: optax.Params) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(zeros, jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: optax.Updates, state: AdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamState]:
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda n, g: b2 * n + (1 - b2) * g * g, state.nu, grads)
        updates = jax.tree.map(lambda m, n: m / (jnp.sqrt(n) + eps), mu, nu)
        return updates, AdamState(mu, nu)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales all gradients alike, to a global norm of at most `limit` (Pascanu et al. 2013, algorithm 1).

    As Optax's, but by one factor: a product is fused into what reads it, where XLA on a CPU writes Optax's
    quotient out and reads it back, once for each moment of Adam.
    """

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        factor = limit / jnp.maximum(optax.global_norm(grads), limit)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)  # type: ignore[arg-type]


def make(config: OptimConfig, total: int, **units: int) -> optax.GradientTransformation:
    """The whole chain: clip, Adam, decay, trust ratio of LAMB, learning rate."""
    chain = [clip_by_global_norm(config.clip)] if config.clip else []
    chain.append(scale_by_adam(config.b1, config.b2, config.eps, config.bias_correction))
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, decays))
    if config.name == 'lamb':
        chain.append(optax.masked(optax.scale_by_trust_ratio(), decays))
    chain.append(optax.scale_by_learning_rate(schedule(config, total, **units)))
    if config.frozen:
        chain.append(optax.masked(optax.set_to_zero(), lambda p: {n: n.startswith(config.frozen) for n in p}))
    return optax.chain(*chain)
