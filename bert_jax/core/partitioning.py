"""Device mesh, partitioning strategies, and the mapping of logical axis names to shardings.

The mesh has three axes: `data` and `fsdp` split the batch, `fsdp` also splits parameters, and `tensor`
splits attention heads, feed-forward units and the vocabulary. A strategy maps logical axes to mesh axes.
Dimensions whose logical axis is not in the strategy are replicated.
"""

import collections
import contextlib
import contextvars
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError

MESH_AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')
LOGICAL_AXES = ('batch', 'position', 'vocab', 'embed', 'heads', 'kv', 'mlp')
_TENSOR = {'heads': ('tensor',), 'mlp': ('tensor',), 'vocab': ('tensor',)}
STRATEGIES: dict[str, dict[str, tuple[str, ...]]] = {
    'dp': {'batch': BATCH_AXES},
    'fsdp': {'batch': BATCH_AXES, 'embed': ('fsdp',)},
    'tp': {'batch': BATCH_AXES, **_TENSOR},
    'fsdp_tp': {'batch': BATCH_AXES, 'embed': ('fsdp',), **_TENSOR},
}
_MAIN_AXIS = {'dp': 'data', 'fsdp': 'fsdp', 'tp': 'tensor', 'fsdp_tp': 'fsdp'}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Shape of the device mesh, and the strategy that splits arrays over its axes.

    With several TPU slices, only one axis connects devices of different slices: `data`, or `fsdp` if the size of
    `data` is not divisible by the number of slices.

    Attributes:
      strategy: entry of `STRATEGIES` that maps parameters and activations to mesh axes.
      data, fsdp, tensor: sizes of the mesh axes; an axis of size 0 gets a default size. The default size of the main
        axis of the strategy (`data` for dp, `fsdp` for fsdp and fsdp_tp, `tensor` for tp) is the number of remaining
        devices, and that of the other axes is 1. If the size of the main axis is set, `data` gets the remaining
        devices instead.
    """

    strategy: Literal['dp', 'fsdp', 'tp', 'fsdp_tp'] = 'dp'
    data: int = 0
    fsdp: int = 0
    tensor: int = 0


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """A device mesh and the rules of one strategy, which map logical axes to mesh axes."""

    mesh: Mesh
    rules: Mapping[str, tuple[str, ...]]

    def _mesh_axes(self, logical: Sequence[str | None]) -> list[tuple[str, ...]]:
        """Return the mesh axes over which each dimension is split."""
        return [self.rules.get(axis, ()) if axis else () for axis in logical]

    def spec(self, logical: Sequence[str | None], name: str = 'an array') -> P:
        """Map logical axis names to a `PartitionSpec`.

        Raises:
          UserError: for an unknown axis name, or if two dimensions map to the same mesh axis.
        """
        for axis in logical:
            if axis is not None and axis not in LOGICAL_AXES:
                raise UserError(f'{name} has the unknown axis {axis!r}: {did_you_mean(axis, LOGICAL_AXES)}')
        targets = self._mesh_axes(logical)
        used = [*itertools.chain(*targets)]
        if repeated := [axis for axis in used if used.count(axis) > 1]:
            raise UserError(
                f'{name} {tuple(logical)} maps two dimensions to the mesh axis {repeated[0]!r}. '
                'Choose another mesh.strategy.'
            )
        return P(*targets)

    def sharding(self, logical: Sequence[str | None], shape: Sequence[int], name: str) -> NamedSharding:
        """Compute the sharding of one named array.

        Raises:
          UserError: for the reasons of `spec`, or if a dimension is not divisible by the size of its mesh axes.
        """
        spec = self.spec(logical, name)
        for i, axes in enumerate(self._mesh_axes(logical)):
            parts = math.prod(self.mesh.shape[a] for a in axes)
            if shape[i] % parts:
                names, is_one = ' and '.join(f'mesh.{axis}' for axis in axes), len(axes) == 1
                raise UserError(
                    f'{name} has shape {tuple(shape)}, and dimension {i} ({logical[i]}) is not divisible by {parts}, '
                    f'the {"size" if is_one else "product"} of {names}. '
                    f'Set {names} {"to" if is_one else "so that the product is"} a divisor of {shape[i]}.'
                )
        return NamedSharding(self.mesh, spec)

    @property
    def replicated(self) -> NamedSharding:
        """Sharding of an array that every device holds completely."""
        return NamedSharding(self.mesh, P())

    @property
    def batch(self) -> NamedSharding:
        """Sharding of a batch: the leading dimension is split over `data` and `fsdp`."""
        return NamedSharding(self.mesh, P(BATCH_AXES))

    @property
    def platform(self) -> str:
        """Platform of the devices: 'cpu', 'gpu' or 'tpu'."""
        device = self.mesh.abstract_mesh.abstract_device
        return device.platform if device else jax.default_backend()

    @property
    def num_batch_shards(self) -> int:
        """Number of parts into which the leading dimension of a batch is split."""
        return math.prod(self.mesh.shape[a] for a in BATCH_AXES)

    def check_batch(self, batch_size: int, name: str = 'train.batch_size') -> None:
        """Raise UserError if a global batch of this size cannot be split evenly over the mesh."""
        if batch_size % self.num_batch_shards:
            raise UserError(
                f'{name}={batch_size}, the global batch size, is not divisible by {self.num_batch_shards}, the product '
                f'of mesh.data and mesh.fsdp. Set it to a multiple of {self.num_batch_shards}.'
            )

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Return the sorted indices of the rows of a global batch that the devices of this process hold."""
        slices = self.batch.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[s] for s in slices]))

    @functools.cached_property
    def global_batch_factor(self) -> int:
        """Size of a global batch divided by the number of rows that this process holds."""
        return self.num_batch_shards // len(self.local_rows(self.num_batch_shards))

    def global_batch(self, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Create global arrays from the rows of a batch that this process holds (`local_rows`)."""
        return jax.make_array_from_process_local_data(self.batch, dict(local))


def mesh_shape(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """Compute the sizes of the mesh axes for a number of devices.

    Raises:
      UserError: if the product of the sizes is not the number of devices.
    """
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    given = math.prod(size or 1 for size in sizes.values())
    free = [axis for axis in (_MAIN_AXIS[config.strategy], 'data') if not sizes[axis]]
    if free and devices % given == 0:
        sizes[free[0]] = devices // given
    shape = tuple(size or 1 for size in sizes.values())
    if min(shape) < 1 or math.prod(shape) != devices:
        raise UserError(
            f'A mesh of {" x ".join(f"{a}={s}" for a, s in zip(MESH_AXES, shape, strict=True))} does not '
            f'fit {devices} device(s). Set mesh.data, mesh.fsdp and mesh.tensor to sizes whose product is {devices}.'
        )
    return shape


def make(config: MeshConfig, devices: Sequence[Any] | None = None) -> Partitioner:
    """Arrange devices in a mesh.

    Args:
      config: sizes of the mesh axes, and the strategy.
      devices: devices to use; None uses all.

    Raises:
      UserError: if the product of the sizes is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(config, len(devices))
    types = (AxisType.Auto,) * 3
    slices = len({getattr(d, 'slice_index', 0) for d in devices}) if devices[0].platform == 'tpu' else 1
    if slices > 1:
        grid = _arrange_slices(shape, slices, devices)
    else:  # a mesh such as 4x256 on an 8x8x16 TPU has to split a physical axis
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Partitioner(Mesh(grid, MESH_AXES, types), STRATEGIES[config.strategy])


def _arrange_slices(shape: Sequence[int], slices: int, devices: Sequence[Any]) -> np.ndarray:
    """Arrange the devices of several TPU slices so that only one mesh axis uses the slower network between slices."""
    outer = next((o for o in ((slices, 1, 1), (1, slices, 1)) if not any(np.mod(shape, o))), None)
    if outer is None:
        raise UserError(
            f'Neither mesh.data={shape[0]} nor mesh.fsdp={shape[1]} is divisible by {slices}, the number of TPU slices. '
            f'Set mesh.data={slices}.'
        )
    inner = [size // n for size, n in zip(shape, outer, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)


def make_abstract(config: MeshConfig, devices: int, device: AbstractDevice | None = None) -> Partitioner:
    """Create a partitioner for devices that need not exist, to compute shapes and shardings, or to lower programs.

    Args:
      config: sizes of the mesh axes, and the strategy.
      devices: number of devices.
      device: kind and platform of the devices; None means those of this machine.
    """
    shape, types = mesh_shape(config, devices), (AxisType.Auto,) * 3
    mesh: Any = AbstractMesh(shape, MESH_AXES, axis_types=types, abstract_device=device)
    return Partitioner(mesh, STRATEGIES[config.strategy])


_active: contextvars.ContextVar[Partitioner | None] = contextvars.ContextVar('partitioner', default=None)


@contextlib.contextmanager
def use(partitioner: Partitioner) -> Iterator[None]:
    """Make `partitioner` the active one in a `with` block, in which to trace the functions that call `constrain`."""
    token = _active.set(partitioner)
    try:
        yield
    finally:
        _active.reset(token)


def active() -> Partitioner | None:
    """Return the active partitioner, or None."""
    return _active.get()


def target_platform() -> str:
    """Return the platform on which the program being traced will run: 'cpu', 'gpu' or 'tpu'."""
    partitioner = _active.get()
    return jax.default_backend() if partitioner is None else partitioner.platform


def is_single_cpu() -> bool:
    """Return whether the program being traced will run on a single CPU device."""
    partitioner = _active.get()
    return target_platform() == 'cpu' and (partitioner is None or partitioner.mesh.size == 1)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Shard an activation by the logical names of its dimensions; with a single device or no active mesh, return it."""
    partitioner = _active.get()
    if partitioner is None or partitioner.mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(partitioner.mesh, partitioner.spec(logical)))


def map_shards(f: Callable[..., Any], params: Any, *arrays: jax.Array) -> Any:
    """Apply a function to each shard of a batch, so that the gradients of its parameters are reduced once.

    XLA reduces the gradient of each use of a replicated parameter over the devices, and in a loop once per iteration.
    Here, each shard has a copy of the parameters. The gradient of the copies is one array per device, which is reduced
    outside `f`. Without an active mesh, or if the mesh splits more than the batch, `f` is called once.

    Args:
      f: function of `params` and `arrays` that treats each row independently, and returns arrays of as many rows.
      params: pytree of replicated parameters.
      *arrays: arrays with the batch as their first dimension.

    Returns:
      What `f(params, *arrays)` returns.
    """
    partitioner = _active.get()
    shards = partitioner.num_batch_shards if partitioner and set(partitioner.rules) == {'batch'} else 1
    if shards == 1 or len(arrays[0]) % shards:
        return f(params, *arrays)
    copies = jax.tree.map(lambda x: constrain(jnp.broadcast_to(x, (shards, *x.shape)), 'batch'), params)
    parts = [constrain(x.reshape(shards, -1, *x.shape[1:]), 'batch') for x in arrays]
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.vmap(f)(copies, *parts))


def format_parameters(shardings: Mapping[str, NamedSharding], shapes: Mapping[str, Any]) -> str:
    """Format one line per parameter: path, shape and spec. Identical layers share a line."""
    lines: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for name, sharding in shardings.items():
        pattern = '/'.join('*' if part.isdigit() else part for part in name.split('/'))
        lines[pattern, str(tuple(shapes[name].shape)), str(sharding.spec)] += 1
    width = max(len(name) for name, _, _ in lines)
    return '\n'.join(
        f'  {name:{width}}  {shape:18} {spec}' + (f'  x{count}' if count > 1 else '')
        for (name, shape, spec), count in lines.items()
    )
