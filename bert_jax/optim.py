"""Learning-rate schedules and optimizers, as Optax chains."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from bert_jax.core.cadence import check_durations, duration_to_steps
from bert_jax.core.config import check_range, did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.core.stacking import is_stacked, layer_paths


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule.

    Attributes:
      name: optimizer. 'adamw' (Loshchilov & Hutter 2019); 'lamb' (You et al. 2020); 'stable_adamw' (Wortsman et al.
        2023, algorithm 2), AdamW whose updates are clipped, see `clip_by_rms`, which needs no `clip_norm`; or 'muon'
        (Jordan et al. 2024) for the weight matrices of the blocks, and AdamW for all other parameters.
      learning_rate: peak learning rate.
      schedule: shape of the schedule after the warmup: 'linear' or 'cosine' decay over the rest of the run,
        'wsd' (warmup-stable-decay: constant, then a decay over `decay`), or 'constant'.
      warmup: duration of the linear warmup from 0, such as 0.1 for a tenth of the run; 0 has none.
      decay: duration of the decay at the end of 'wsd'.
      decay_shape: decay of 'wsd': 'linear', or '1-sqrt', which falls faster at first: 1 minus the square root of the
        part of the decay that is over (Hägele et al. 2024, section 4).
      end_fraction: final learning rate as a fraction of the peak; 'constant' ignores it.
      b1, b2, eps: parameters of Adam (Kingma & Ba 2015, algorithm 1).
      bias_correction: whether Adam corrects the bias of its moments (Kingma & Ba 2015); the original BERT does not.
      muon_rms: root mean square of the update that Muon computes for a matrix, before the learning rate. With 0.2, about
        that of AdamW, both use the same learning rate and weight decay (Liu et al. 2025, section 2.2). To give the
        matrices r times the learning rate of the other parameters, multiply it by r.
      muon_momentum: decay rate of the average of gradients that Muon orthogonalizes, with Nesterov's momentum.
      weight_decay: weight decay of all parameters except biases and norm scales, which are also
        exempt from LAMB's trust ratio; 0 disables the decay.
      clip_norm: maximum global norm of the gradients of all trained parameters; 0 disables clipping.
      frozen: path prefixes of parameters that are not trained, such as 'bert/'. Neither gradients nor moments of Adam
        are computed for them. Layers that `model.scan_layers` stacks are frozen together or not at all.
    """

    name: Literal['adamw', 'lamb', 'stable_adamw', 'muon'] = 'adamw'
    learning_rate: float = 1e-4
    schedule: Literal['linear', 'cosine', 'wsd', 'constant'] = 'linear'
    warmup: int | float | str = 0.1
    decay: int | float | str = 0.2
    decay_shape: Literal['linear', '1-sqrt'] = 'linear'
    end_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = True
    muon_rms: float = 0.2
    muon_momentum: float = 0.95
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range(self, 'optim', 0, math.inf, 'learning_rate', 'weight_decay', 'clip_norm', 'muon_rms')
        check_range(self, 'optim', 0, 1, 'end_fraction')
        # Beyond these limits, Adam divides zero by zero in float32.
        check_range(self, 'optim', 0, 0.999999, 'b1', 'b2', 'muon_momentum')
        check_range(self, 'optim', 1e-30, math.inf, 'eps')
        check_durations(self, 'optim', 'warmup', 'decay')
        if self.decay_shape != 'linear' and self.schedule != 'wsd':
            raise UserError(
                f'optim.decay_shape={self.decay_shape!r} has no effect on optim.schedule={self.schedule!r}. Set '
                "optim.schedule='wsd', or optim.decay_shape='linear'."
            )


def make_schedule(config: OptimConfig, total: int, **units: Any) -> optax.Schedule:
    """Build the learning rate as a function of the step, from 0 to `total`.

    Args:
      config: the schedule.
      total: steps of the run.
      **units: `batch_size` and `examples`, for durations in epochs or examples.

    Raises:
      UserError: if warmup or decay do not fit into the run.
    """
    peak, end = config.learning_rate, config.learning_rate * config.end_fraction
    warmup = duration_to_steps(config.warmup, total=total, **units)
    if warmup >= total > 0:
        raise UserError(f'optim.warmup is {warmup} steps, but the whole run has {total}. Shorten the warmup.')
    rest = max(1, total - warmup)
    if config.schedule == 'cosine':
        after = optax.cosine_decay_schedule(peak, rest, config.end_fraction)
    elif config.schedule == 'constant':
        after = optax.constant_schedule(peak)
    else:
        is_wsd = config.schedule == 'wsd'
        decay = duration_to_steps(config.decay, total=total, from_end=True, **units) if is_wsd else rest
        if decay > rest:
            raise UserError(
                f'optim.decay is {decay} steps, but only {rest} remain after the warmup. Shorten the decay.'
            )
        after = optax.linear_schedule(peak, end, max(1, decay), transition_begin=rest - decay)
        if config.decay_shape == '1-sqrt':
            after = _inverse_sqrt_decay(peak, end, max(1, decay), rest - decay)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0, peak, warmup), after], [warmup])


def _inverse_sqrt_decay(peak: float, end: float, steps: int, start: int) -> optax.Schedule:
    """Decay from `peak` to `end` by 1 - sqrt(x), where x is the part of the `steps` that is over (Hägele et al. 2024)."""

    def schedule(step: Any) -> Any:
        return peak - (peak - end) * jnp.sqrt(jnp.clip((step - start) / steps, 0, 1))

    return schedule


def trained_paths(config: OptimConfig, paths: Collection[str]) -> frozenset[str]:
    """Return the paths of the parameters that are trained: those that begin with none of `config.frozen`.

    Whole parts of a path are compared: 'bert/layers/blocks/1' does not match 'bert/layers/blocks/10'. The paths of a
    stacked parameter are those of its layers.

    Raises:
      UserError: if no path begins with one of these prefixes, or every path begins with one, or some layers of a stacked
        parameter do.
    """
    prefixes = tuple(f'{prefix.rstrip("/")}/' for prefix in config.frozen)
    for prefix in prefixes:
        if not any(f'{layer}/'.startswith(prefix) for path in paths for layer in layer_paths(path)):
            modules = {f'{path.partition("/")[0]}/' for path in paths}
            raise UserError(f'optim.frozen={prefix!r} matches no parameter: {did_you_mean(prefix, modules)}')
    is_frozen = {path: {f'{p}/'.startswith(prefixes) for p in layer_paths(path)} for path in paths}
    if any(len(values) > 1 for values in is_frozen.values()):
        raise UserError(
            f'optim.frozen={config.frozen} freezes only some of the layers that model.scan_layers stores in one array. '
            'Set model.scan_layers=False.'
        )
    trained = frozenset(path for path in paths if is_frozen[path] == {False})
    if not trained:
        raise UserError(
            f'optim.frozen={config.frozen} leaves no parameter to train. Remove one of the prefixes.'
        )
    return trained


class AdamState(NamedTuple):
    """First and second moments of Adam without bias correction."""

    mu: optax.Updates
    nu: optax.Updates


def scale_by_adam(
    b1: float, b2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adam, with optional bias correction, which the optimizer of the original BERT lacks.

    The update takes another argument `rows`. For a parameter path in `rows`, the gradient consists of the rows of the
    parameter at the ascending, distinct indices `rows[path]`, and all others are zero. Indices past the end are ignored.
    """

    def init(params: optax.Params) -> Any:
        moments = AdamState(optax.tree.zeros_like(params), optax.tree.zeros_like(params))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), *moments) if bias_correction else moments

    def update(
        grads: Any, state: Any, params: Any = None, *, rows: Mapping[str, jax.Array] | None = None, **_: Any
    ) -> tuple[Any, Any]:
        def accumulate(moments: Any, decay: float, power: int) -> Any:
            def add(path: Any, grad: jax.Array, moment: jax.Array) -> jax.Array:
                new, old = (1 - decay) * grad**power, decay * moment
                if not rows or path[-1].key not in rows:
                    return new + old
                indices = rows[path[-1].key]
                return old.at[indices].add(new, mode='drop', indices_are_sorted=True, unique_indices=True)

            return jax.tree_util.tree_map_with_path(add, grads, moments)

        mu, nu = accumulate(state.mu, b1, 1), accumulate(state.nu, b2, 2)
        state, means, variances = state._replace(mu=mu, nu=nu), mu, nu
        if bias_correction:
            state = state._replace(count=optax.safe_increment(state.count))
            means, variances = (
                optax.tree.bias_correction(x, b, state.count) for x, b in ((mu, b1), (nu, b2))
            )
        return jax.tree.map(lambda m, n: m / (jnp.sqrt(n) + eps), means, variances), state

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scale all gradients by one factor so that their global norm is at most `limit` (Pascanu et al. 2013, algorithm 1).

    Optax divides by the norm instead. Multiplying by a factor is fused into the updates of Adam's moments, while XLA on
    a CPU materializes the quotients and reads them back, once per moment.
    """

    def clip(grads: optax.Updates, params: optax.Params | None) -> optax.Updates:
        factor = limit / jnp.maximum(optax.global_norm(grads), limit)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)

    return optax.stateless(clip)


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """Scale the update of each parameter to the norm of the parameter (You et al. 2020, algorithm 2).

    Each layer of a stacked parameter has its own norms.
    """
    whole = optax.scale_by_trust_ratio()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scale(update: jax.Array, param: jax.Array) -> jax.Array:
            return whole.update(update, state, param)[0]  # type: ignore[return-value, arg-type]

        return _map_layers(scale, updates, params), state

    return optax.GradientTransformation(whole.init, update)


def _map_layers(f: Callable[..., jax.Array], tree: Any, *rest: Any) -> Any:
    """Apply `f` to each parameter of trees of the same structure, and to each layer of a stacked one separately."""

    def map_layers(path: Any, *values: jax.Array) -> jax.Array:
        return (jax.vmap(f) if is_stacked(path[0].key) else f)(*values)

    return jax.tree_util.tree_map_with_path(map_layers, tree, *rest)


def clip_by_rms(
    adam: optax.GradientTransformationExtraArgs, b2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformationExtraArgs:
    """Divide the updates of AdamW by max(1, RMS), as StableAdamW does (Wortsman et al. 2023, algorithm 2).

    RMS is the root mean square, over the entries of one parameter, of the gradient divided by the root of Adam's
    second moment. It exceeds 1 while the second moment lags behind gradients that have grown. Each layer of a
    stacked parameter has its own.

    Args:
      adam: Adam, and weight decay if there is any.
      b2, eps, bias_correction: settings of `adam`.
    """

    def update(
        grads: Any, state: Any, params: Any = None, *, rows: Mapping[str, jax.Array] | None = None, **_: Any
    ) -> tuple[Any, Any]:
        updates, state = adam.update(grads, state, params, rows=rows)
        nu = optax.tree.get(state, 'nu')
        if bias_correction:
            nu = optax.tree.bias_correction(nu, b2, optax.tree.get(state, 'count'))
        for path, indices in (rows or {}).items():
            nu = nu | {path: nu[path].at[indices].get(mode='clip', indices_are_sorted=True)}

        def clip(update: jax.Array, grad: jax.Array, nu: jax.Array) -> jax.Array:
            floor = max(eps**2, 1e-30)  # the square of a small eps is 0 in float32
            total = jnp.sum(jnp.square(grad) / jnp.maximum(nu, floor))
            return update / jnp.maximum(1.0, jnp.sqrt(total / update.size))

        return _map_layers(clip, updates, grads, nu), state

    return optax.GradientTransformationExtraArgs(adam.init, update)


def hidden_matrices(
    axes: Mapping[str, Sequence[str | None]],
) -> dict[str, optax.contrib.MuonDimensionNumbers]:
    """Find the weight matrices of the blocks, which Muon updates, and the axes of their two sides.

    One side of a matrix is the axis 'embed', the other its further named axes, such as heads and head width. An axis
    without a name counts matrices: those of queries, keys and values, of a gated feed-forward layer, or of layers.
    Which side is the input does not matter: orthogonalization commutes with transposition.

    Args:
      axes: logical axes of all parameters by path.
    """
    matrices = {}
    for path, names in axes.items():
        embed = tuple(i for i, name in enumerate(names) if name == 'embed')
        others = tuple(i for i, name in enumerate(names) if name not in ('embed', None))
        if 'blocks' in path.split('/') and embed and others:
            matrices[path] = optax.contrib.MuonDimensionNumbers(embed, others)
    return matrices


def scale_by_muon(
    matrices: Mapping[str, optax.contrib.MuonDimensionNumbers],
    momentum: float,
    rms: float,
    others: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Orthogonalize the momentum of matrices (Jordan et al. 2024), scaled to an RMS of about `rms` (Liu et al. 2025, eq. 4).

    Args:
      matrices: result of `hidden_matrices`.
      momentum: decay rate of the average of gradients.
      rms: root mean square of an update.
      others: transformation of all other parameters.

    Raises:
      UserError: from `init`, if none of the parameters is such a matrix.
    """

    def split(params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        rest = {path: value for path, value in params.items() if path not in matrices}
        return {path: value for path, value in params.items() if path in matrices}, rest

    def numbers(params: Any) -> Any:
        return {path: matrices[path] for path in params}

    def scale(updates: Any, params: Any) -> Any:
        def side(path: str, axes: Any) -> int:
            return math.prod(updates[path].shape[i] for i in axes)

        # The entries of an orthogonal matrix [m, n] have the root mean square 1 / sqrt(max(m, n)).
        sizes = {path: max(side(path, axes) for axes in matrices[path]) for path in updates}
        return {path: rms * math.sqrt(sizes[path]) * update for path, update in updates.items()}

    orthogonalize = optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=numbers)
    muon = optax.with_extra_args_support(optax.chain(orthogonalize, optax.stateless(scale)))
    transforms = (muon, others)

    def init(params: Any) -> Any:
        if not split(params)[0]:
            raise UserError(
                'optim.name=muon has no weight matrix to update: no trained parameter is one of a block. Set '
                'optim.name=adamw.'
            )
        return tuple(t.init(part) for t, part in zip(transforms, split(params), strict=True))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        parts = zip(transforms, split(grads), state, split(params), strict=True)
        updates, states = zip(*(t.update(g, s, p, **extra) for t, g, s, p in parts), strict=True)
        merged = updates[0] | updates[1]
        return {path: merged[path] for path in grads}, states

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(
    config: OptimConfig,
    total: int,
    undecayed: Collection[str],
    axes: Mapping[str, Sequence[str | None]] | None = None,
    **units: Any,
) -> optax.GradientTransformation:
    """Build the optimizer of the trained parameters: clipping, Adam, weight decay, LAMB's trust ratio, learning rate.

    Muon replaces Adam for the weight matrices of the blocks.

    Args:
      config: the optimizer and its schedule.
      total: steps of the run.
      undecayed: paths of the parameters that are exempt from weight decay and LAMB's trust ratio.
      axes: logical axes of all parameters by path, which Muon needs.
      **units: `batch_size` and `examples`, for durations in epochs or examples.
    """

    def is_decayed(params: Mapping[str, Any]) -> dict[str, bool]:
        return {path: path not in undecayed for path in params}

    adam = scale_by_adam(config.b1, config.b2, config.eps, config.bias_correction)
    if config.name == 'muon':
        adam = scale_by_muon(hidden_matrices(axes or {}), config.muon_momentum, config.muon_rms, adam)
    chain = [adam]
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, is_decayed))
    if config.name == 'stable_adamw':
        chain = [clip_by_rms(optax.chain(*chain), config.b2, config.eps, config.bias_correction)]
    if config.name == 'lamb':
        chain.append(optax.masked(scale_by_trust_ratio(), is_decayed))
    if config.clip_norm:
        chain.insert(0, clip_by_global_norm(config.clip_norm))
    chain.append(optax.scale_by_learning_rate(make_schedule(config, total, **units)))
    return optax.chain(*chain)
