"""Mesh, strategies, and the way from a logical axis name to a sharding.

The mesh has three axes: `data` and `fsdp` split the batch, `fsdp` also splits parameters,
`tensor` splits heads, feed-forward units and vocabulary. A strategy says which logical axis
goes to which mesh axis; an axis that it does not name is replicated.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError

AXES = ('data', 'fsdp', 'tensor')
BATCH = ('data', 'fsdp')
LOGICAL = ('batch', 'position', 'vocab', 'embed', 'heads', 'kv', 'mlp')
_TENSOR = {'heads': 'tensor', 'mlp': 'tensor', 'vocab': 'tensor'}
STRATEGIES: dict[str, dict[str, Any]] = {
    'dp': {'batch': BATCH},
    'fsdp': {'batch': BATCH, 'embed': 'fsdp'},
    'tp': {'batch': BATCH, **_TENSOR},
    'fsdp_tp': {'batch': BATCH, 'embed': 'fsdp', **_TENSOR},
}
_MAIN_AXIS = {'dp': 'data', 'fsdp': 'fsdp', 'tp': 'tensor', 'fsdp_tp': 'fsdp'}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out and what is split over them.

    Attributes:
      strategy: which table of `STRATEGIES` places parameters and activations.
      data, fsdp, tensor: size of each mesh axis; 0 is 1, except that the strategy's main axis
        (data, fsdp, tensor, fsdp), or `data` where that is given, takes all devices that are left. Several slices of
        TPUs are spanned by `data`, or by `fsdp` where `data` does not divide by their number.
    """

    strategy: Literal['dp', 'fsdp', 'tp', 'fsdp_tp'] = 'dp'
    data: int = 0
    fsdp: int = 0
    tensor: int = 0


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """A mesh and the rules of one strategy."""

    mesh: Mesh
    rules: Mapping[str, Any]

    def spec(self, logical: Sequence[str | None], name: str = 'an array') -> P:
        """Maps logical axis names to a `PartitionSpec`.

        Raises:
          UserError: for an unknown axis name, or one mesh axis on two dimensions.
        """
        used: list[str] = []
        spec: list[Any] = []
        for axis in logical:
            if axis is not None and axis not in LOGICAL:
                raise UserError(f'{name} has the unknown axis {axis!r}: {nearest(axis, LOGICAL)}')
            target = self.rules.get(axis) if axis else None
            for mesh_axis in (target,) if isinstance(target, str) else target or ():
                if mesh_axis in used:
                    raise UserError(f'{name} {tuple(logical)} would use the mesh axis {mesh_axis!r} twice.')
                used.append(mesh_axis)
            spec.append(target)
        return P(*spec)

    def sharding(self, logical: Sequence[str | None], shape: Sequence[int], name: str) -> NamedSharding:
        """The sharding of one named array.

        Raises:
          UserError: also if a dimension does not divide by its part of the mesh.
        """
        spec = self.spec(logical, name)
        for i, target in enumerate(spec):
            axes = (target,) if isinstance(target, str) else target or ()
            parts = math.prod(self.mesh.shape[a] for a in axes)
            if shape[i] % parts:
                raise UserError(
                    f'{name} has shape {tuple(shape)}: dimension {i} ({logical[i]}) does not divide '
                    f'by {parts}, the size of mesh axis {"*".join(axes)}: set mesh.{"*".join(axes)} to a size that divides it.'
                )
        return NamedSharding(self.mesh, spec)

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())

    @property
    def batch(self) -> NamedSharding:
        """Sharding of a batch: the leading dimension over `data` and `fsdp`."""
        return NamedSharding(self.mesh, P(BATCH))

    @property
    def batch_parts(self) -> int:
        return math.prod(self.mesh.shape[a] for a in BATCH)

    def check_batch(self, batch_size: int, name: str = 'train.batch_size') -> None:
        """Raises UserError if the global batch cannot be split evenly."""
        if batch_size % self.batch_parts:
            raise UserError(
                f'{name}={batch_size} does not divide by {self.batch_parts}, the mesh axes '
                'data*fsdp: it is the global batch, so choose a multiple.'
            )

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Which rows of a global batch the devices of this process hold, in order."""
        places = self.batch.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[place] for place in places]))

    @functools.cached_property
    def shares(self) -> int:
        """How many shares like that of this process make a global batch."""
        return self.batch_parts // len(self.local_rows(self.batch_parts))

    def global_batch(self, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Makes global arrays from the `local_rows` of a batch."""
        if jax.process_count() == 1:
            return jax.device_put(dict(local), self.batch)
        batch_size = len(next(iter(local.values()))) * self.shares
        rows = self.local_rows(batch_size)

        def make(values: np.ndarray) -> jax.Array:
            def piece(index: Any) -> np.ndarray:
                first, end, _ = index[0].indices(batch_size)
                start = int(np.searchsorted(rows, first))
                return values[start : start + end - first]

            return jax.make_array_from_callback((batch_size, *values.shape[1:]), self.batch, piece)

        return {k: make(v) for k, v in local.items()}


def mesh_shape(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """Sizes of the mesh axes over so many devices.

    Raises:
      UserError: if they do not multiply to the number of devices.
    """
    sizes = {axis: getattr(config, axis) for axis in AXES}
    given = math.prod(size or 1 for size in sizes.values())
    free = [axis for axis in (_MAIN_AXIS[config.strategy], 'data') if not sizes[axis]]
    if free and devices % given == 0:
        sizes[free[0]] = devices // given
    shape = tuple(size or 1 for size in sizes.values())
    if min(shape) < 1 or math.prod(shape) != devices:
        raise UserError(
            f'A mesh of {" x ".join(f"{a}={s}" for a, s in zip(AXES, shape, strict=True))} does not '
            f'fit {devices} device(s): set mesh.data, mesh.fsdp and mesh.tensor to sizes whose product is that.'
        )
    return shape


def make(config: MeshConfig, devices: Sequence[Any] | None = None) -> Partitioner:
    """Lays the devices out as a mesh.

    Raises:
      UserError: if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(config, len(devices))
    types = (AxisType.Auto,) * 3
    slices = len({getattr(d, 'slice_index', 0) for d in devices}) if devices[0].platform == 'tpu' else 1
    if slices > 1:
        mesh = Mesh(_over_slices(shape, slices, devices), AXES, types)
        return Partitioner(mesh, STRATEGIES[config.strategy])
    try:
        mesh = jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # on a TPU whose own axes do not multiply to these: 8x8x16 to 4x256, say
        mesh = Mesh(
            mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True), AXES, types
        )
    return Partitioner(mesh, STRATEGIES[config.strategy])


def _over_slices(shape: Sequence[int], slices: int, devices: Sequence[Any]) -> np.ndarray:
    """Devices of several TPU slices: the network between them, slower than the links within, has to carry one axis only."""
    outer = next((o for o in ((slices, 1, 1), (1, slices, 1)) if not any(np.mod(shape, o))), None)
    if outer is None:
        raise UserError(
            f'These TPUs are {slices} slices, over which neither mesh.data={shape[0]} nor mesh.fsdp={shape[1]} can be '
            f'split: set mesh.data={slices}.'
        )
    inner = [size // by for size, by in zip(shape, outer, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)


def abstract(config: MeshConfig, devices: int) -> Partitioner:
    """As `make`, of devices that are not here: for shapes and shardings."""
    mesh: Any = AbstractMesh(mesh_shape(config, devices), AXES, axis_types=(AxisType.Auto,) * 3)
    return Partitioner(mesh, STRATEGIES[config.strategy])


_active: contextvars.ContextVar[Partitioner | None] = contextvars.ContextVar('partitioner', default=None)


@contextlib.contextmanager
def use(partitioner: Partitioner) -> Iterator[None]:
    """While this is open, `constrain` knows the mesh; a step is traced inside it."""
    token = _active.set(partitioner)
    try:
        yield
    finally:
        _active.reset(token)


def active() -> Partitioner | None:
    """The partitioner in use."""
    return _active.get()


def platform() -> str:
    """What the program that is being traced will run on: 'cpu', 'gpu' or 'tpu'."""
    partitioner = _active.get()
    if partitioner is None or isinstance(partitioner.mesh, AbstractMesh):
        return jax.default_backend()
    return partitioner.mesh.devices.flat[0].platform


def on_one_cpu() -> bool:
    """Whether the program that is being traced will run on a CPU that is one device."""
    partitioner = _active.get()
    return platform() == 'cpu' and (partitioner is None or partitioner.mesh.size == 1)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Pins an activation to its place on the mesh; without a mesh of several devices, does nothing."""
    partitioner = _active.get()
    if partitioner is None or partitioner.mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(partitioner.mesh, partitioner.spec(logical)))


def table(shardings: Mapping[str, NamedSharding], shapes: Mapping[str, Any]) -> str:
    """One line a parameter: path, shape, spec. Layers that look alike share a line."""
    lines: dict[tuple[str, str, str], int] = {}
    for name, sharding in shardings.items():
        generic = '/'.join('*' if part.isdigit() else part for part in name.split('/'))
        key = (generic, str(tuple(shapes[name].shape)), str(sharding.spec))
        lines[key] = lines.get(key, 0) + 1
    width = max(len(name) for name, _, _ in lines)
    total = sum(math.prod(s.shape) for s in shapes.values())
    body = [
        f'  {n:{width}}  {shape:18} {spec}' + (f'  x{c}' if c > 1 else '')
        for (n, shape, spec), c in lines.items()
    ]
    return '\n'.join([f'{total:,} parameters', *body])
