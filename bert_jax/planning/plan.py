"""What a run will take on chips that are not here: memory, collectives, and the time that a step cannot fall below.

For TPUs the real compiler says it (libtpu compiles without a TPU); for GPUs formulas do.
"""

import contextlib
import dataclasses
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from bert_jax.core import partitioning
from bert_jax.core.chips import CHIPS, GPUS, TPUS, Chip, GiB
from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import human
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.planning import abstract_step
from bert_jax.planning.collectives import Collective, collectives
from bert_jax.train.experiment import Experiment
from bert_jax.train.loop import Phase


@dataclasses.dataclass(frozen=True)
class Topology:
    """So many chips of a kind: 'v5e:4x4', 'h100:8'."""

    name: str

    def __post_init__(self) -> None:
        if self.kind not in CHIPS:
            raise UserError(f'There is no chip {self.kind!r} in {self.name!r}: {nearest(self.kind, CHIPS)}')
        if not re.fullmatch(r'\d+(x\d+)*', self.name.partition(':')[2]) or not self.chips:
            raise UserError(f'{self.name!r} does not say how many chips: write v5e:4x4, v5p:4x4x4 or h100:8.')
        if self.name.count('x', self.name.index(':')) + 1 != self.chip.dimensions:
            example = 'x'.join('4' * self.chip.dimensions)
            raise UserError(
                f'{self.name!r} has not the dimensions of {self.kind}: write {self.kind}:{example}.'
            )

    @property
    def kind(self) -> str:
        return self.name.partition(':')[0]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.name.partition(':')[2].split('x')))

    def devices(self) -> list[Any]:
        """The devices of a TPU that is not here, for the compiler.

        Raises:
          UserError: without libtpu, or if there is no such TPU.
        """
        known = {
            # What libtpu would look for on a TPU VM, whatever the topology.
            'TPU_SKIP_MDS_QUERY': '1',
            'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
            'TPU_WORKER_HOSTNAMES': 'localhost',
            'TPU_WORKER_ID': '0',
            'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # several plans at a time: none of them holds a TPU
        }
        for name, value in known.items():
            os.environ.setdefault(name, value)
        from jax.experimental.topologies import get_topology_desc

        # As on TPU VMs, where the two cores of a v4 are one device.
        cores = {'chip_config_name': 'megacore'} if self.kind == 'v4' else {}
        try:
            return get_topology_desc(platform='tpu', topology_name=self.name, **cores).devices
        except Exception as e:
            text = str(e)
            if 'not installed' in text:
                raise UserError(
                    'The TPU compiler is not installed: pip install "jax[tpu]" in an environment of its own, and plan there.'
                ) from e
            raise UserError(f'The TPU compiler knows no {self.name!r}: {text.splitlines()[0][:200]}') from e


def topologies(text: str) -> list[Topology]:
    """Topologies with commas between them, in whatever case."""
    found = [Topology(name.strip().lower()) for name in text.split(',') if name.strip()]
    if not found:
        raise UserError('--topology names none: write v5e:4x4, or several with commas between.')
    return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """One step on a topology.

    Attributes:
      topology: where.
      tokens: of the global batch.
      memory: bytes a chip, by what they are for.
      flops: FLOP a chip: of the model, or what the compiler counts if that is more.
      traffic: bytes through the memory of a chip, if each buffer is written and read once.
      collectives: of the step.
      formula: whether it is an estimate by formula, and no compiler was asked.
    """

    topology: Topology
    tokens: int
    memory: Mapping[str, float]
    flops: float
    traffic: float
    collectives: Sequence[Collective]
    formula: bool = False

    @property
    def used(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.used <= self.topology.chip.memory

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each part of the chip needs at the least."""
        chip = self.topology.chip
        sent = sum(c.sent for c in self.collectives)
        return {
            'compute': self.flops / chip.flops,
            'memory': self.traffic / chip.bandwidth,
            'links': sent / chip.links,
        }

    @property
    def seconds(self) -> float:
        """A step cannot be faster (Williams et al. 2009): all parts work at once, at their peak."""
        return max(self.times.values())

    @property
    def limit(self) -> str:
        return max(self.times, key=lambda name: self.times[name])

    def lines(self) -> list[str]:
        chip, parts = self.topology.chip, self.times
        memory = ', '.join(f'{name} {value / GiB:.2f}' for name, value in self.memory.items())
        verdict = 'fits' if self.fits else 'DOES NOT FIT'
        found = [
            f'memory a chip: {self.used / GiB:.2f} of {chip.memory / GiB:.0f} GiB, {verdict} ({memory})',
            f'compute a chip: {self.flops / 1e12:.3g} TFLOP',
        ]
        found += [
            f'{c.kind}: {c.number:,} a step, {c.data / 1e6:,.0f} MB, {c.sent / 1e6:,.0f} MB sent by each chip'
            for c in self.collectives
        ] or ['no collectives']
        bounds = ', '.join(f'{name} {1e3 * value:.2f} ms' for name, value in parts.items())
        found.append(
            f'a step takes at least {1e3 * self.seconds:.2f} ms, by {self.limit} ({bounds}): '
            f'at most {human(self.tokens / self.seconds)} tokens/s'
        )
        return found


class TooLarge(UserError):
    """A step that the compiler cannot fit into the memory of a chip."""


def measure(experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology) -> Plan:
    """What a step of a phase takes.

    Args:
      experiment, tokenizer: as of `abstract_step.stand_in`.
      phase: row length and global batch size.
      topology: where.

    Raises:
      TooLarge: if it does not fit on a TPU; of GPUs the result says so.
      UserError: if mesh or batch do not divide, or there is no compiler.
    """
    if topology.kind in GPUS:
        return _estimate(experiment, tokenizer, phase, topology)
    step = abstract_step.make(
        experiment, tokenizer, phase, partitioning.make(experiment.mesh, topology.devices())
    )
    try:
        compiled = step.lower().compile()
    except jax.errors.JaxRuntimeError as e:
        if 'RESOURCE_EXHAUSTED' not in str(e):
            raise
        used = re.search(r'Used (\S+) of (\S+) hbm', str(e))
        raise TooLarge(
            f'{phase.batch_size} rows of {phase.length} tokens do not fit'
            + (f' (a chip would need {used[1]} of {used[2]})' if used else '')
            + ': set a smaller batch or train.accumulate, model.remat=full, mesh.strategy=fsdp, or take more chips.'
        ) from e
    stats, devices = compiled.memory_analysis(), topology.chip.devices
    parameters, optimizer = step.bytes
    fresh = stats.output_size_in_bytes - stats.alias_size_in_bytes
    memory = {
        'parameters': parameters,
        'optimizer': optimizer,
        'batch': stats.argument_size_in_bytes - parameters - optimizer + fresh,
        'activations and gradients': stats.temp_size_in_bytes,
        'program': stats.generated_code_size_in_bytes,
    }
    traffic = stats.argument_size_in_bytes + stats.output_size_in_bytes + 2 * stats.temp_size_in_bytes
    size = topology.chips * devices
    return Plan(
        topology,
        step.tokens,
        {name: devices * value for name, value in memory.items()},
        devices * max(step.flops / size, compiled.cost_analysis().get('flops', 0.0)),
        devices * traffic,
        collectives(compiled.as_text(), size),
    )


# Bytes a token and layer that a block keeps for its backward pass in half precision, in units of the model's width
# (Korthikanti et al. 2022, section 4, without the scores of attention, which fused attention does not keep).
_KEPT = {'none': 34, 'dots': 18, 'full': 2}


def _estimate(experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology) -> Plan:
    """By formula, without a compiler; more than 8 GPUs as if they were one node, in which sums are made before they leave it.

    Messages as Rajbhandari et al. 2020 (section 7) count them for data parallelism and for sharded parameters, and
    Shoeybi et al. 2019 (section 3) for tensor parallelism.
    """
    sizes = partitioning.mesh_shape(experiment.mesh, topology.chips)
    partitioner = partitioning.abstract(experiment.mesh, topology.chips)
    step = abstract_step.make(experiment, tokenizer, phase, partitioner)
    data, fsdp, tensor = sizes
    parameters, optimizer = step.bytes
    model, rows = experiment.model, phase.batch_size // (data * fsdp) // experiment.train.accumulate
    half = 2 if model.dtype == 'bfloat16' else 4
    tokens = rows * phase.length
    layers = model.blocks
    activations = tokens * layers * model.width * _KEPT[model.remat] * half / 2 / tensor
    columns = step.batch['weights'].shape[1]
    columns = min(columns, getattr(experiment.task, 'chunk', 0) or columns)
    scores = 2 * 4 * rows * columns * model.padded_vocab / tensor  # with their gradient
    whole = sum(4 * math.prod(x.shape) for x in step.layout.shapes.params.values()) / tensor
    messages = []

    def add(kind: str, count: int, size: float, group: int) -> None:
        if group > 1:
            sent = (2 if kind == 'all-reduce' else 1) * size * (group - 1) / group
            messages.append(Collective(kind, count, size, sent))

    sharded = fsdp if parameters < whole else 1
    add('all-gather', 2, 2 * whole * half / 4, sharded)
    add('reduce-scatter', 1, whole, sharded)
    add('all-reduce', 1, whole / sharded, data * fsdp // sharded)
    parts = tensor if experiment.mesh.strategy in ('tp', 'fsdp_tp') else 1
    sums = 4 * layers * experiment.train.accumulate
    add('all-reduce', sums, sums * tokens * model.width * half, parts)
    memory = {
        'parameters': parameters,
        'optimizer': optimizer,
        'gradients': parameters,
        'activations': activations,
        'scores of the vocabulary': scores,
    }
    traffic = 4 * parameters + 2 * optimizer + 2 * (activations + scores) * experiment.train.accumulate
    again = 4 / 3 if model.remat == 'full' else 1  # what is not kept is computed a second time
    flops = again * step.flops / topology.chips
    return Plan(topology, step.tokens, memory, flops, traffic, messages, formula=True)


def largest(
    experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology
) -> Iterator[tuple[str, int, Plan | None]]:
    """For each rematerialisation, the cheapest first, the largest global batch that fits, by doubling from one row a device.

    Yields:
      Its name, the batch and its plan; 0 and None if not even a row a device fits.
    """
    unit = partitioning.abstract(experiment.mesh, topology.chips * topology.chip.devices).batch_parts
    unit *= experiment.train.accumulate
    size = unit
    while 2 * size <= phase.batch_size:  # where to look first
        size *= 2
    for remat in ('none', 'dots', 'full'):
        tried = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, remat=remat))

        def fitting(size: int, tried: Experiment = tried) -> Plan | None:
            with contextlib.suppress(TooLarge):
                plan = measure(tried, tokenizer, dataclasses.replace(phase, batch_size=size), topology)
                return plan if plan.fits else None
            return None

        best = fitting(size)
        while best is None and size > unit:
            size //= 2
            best = fitting(size)
        while best is not None and (more := fitting(2 * size)) is not None:
            size, best = 2 * size, more
        yield remat, size if best else 0, best


def whole(
    experiment: Experiment,
    tokenizer: Tokenizer,
    phases: Sequence[Phase],
    topology: Topology,
    price: float = 0.0,
) -> Iterator[str]:
    """A whole run, line by line: where the parameters lie, its phases, hours, and what they cost."""
    if topology.kind in TPUS:
        topology.devices()  # is there such a TPU, before it is asked whether the batch divides over it?
    partitioner = partitioning.abstract(experiment.mesh, topology.chips * topology.chip.devices)
    layout = abstract_step.make(experiment, tokenizer, phases[0], partitioner).layout
    how = 'BY FORMULA, an estimate' if topology.kind in GPUS else 'by the TPU compiler'
    yield f'{topology.name}, {topology.chips} chips, mesh.strategy={experiment.mesh.strategy}, {how}'
    yield f'{layout.table()}\n  the optimizer keeps its copies beside them'
    seconds = 0.0
    for phase in phases:
        steps = phase.stop - phase.start
        yield f'{steps:,} steps of {phase.batch_size:,} rows of {phase.length} tokens'
        plan = measure(experiment, tokenizer, phase, topology)
        yield from (f'  {line}' for line in plan.lines())
        seconds += steps * plan.seconds
    for name, factor in (('at least', 1), ('at half that speed', 2)):
        hours = factor * seconds / 3600
        cost = f', {price * hours * topology.chips:,.0f} at {price:g} a chip-hour' if price else ''
        yield f'the whole run, {name}: {hours:,.1f} hours, {hours * topology.chips:,.0f} chip-hours{cost}'


def compare(
    experiment: Experiment,
    tokenizer: Tokenizer,
    phase: Phase,
    topologies: Sequence[Topology],
    meshes: Sequence[MeshConfig],
) -> list[list[str]]:
    """A table of one phase on several topologies: the same global batch on all of them."""
    head = [
        'topology',
        'strategy',
        'chips',
        'GiB a chip',
        'compute ms',
        'memory ms',
        'links ms',
        'limit',
        'tokens/s',
    ]
    lines = [head]
    for topology in topologies:
        for mesh in meshes:
            line = [topology.name, mesh.strategy, str(topology.chips)]
            logging.info('planning %s, %s', topology.name, mesh.strategy)
            try:
                plan = measure(dataclasses.replace(experiment, mesh=mesh), tokenizer, phase, topology)
            except UserError as e:
                why = 'does not fit' if isinstance(e, TooLarge) else str(e)
                lines.append([*line, *[''] * 5, why])
                continue
            fits = '' if plan.fits else ', does not fit'
            times = [f'{1e3 * value:.2f}' for value in plan.times.values()]
            speed = human(plan.tokens / plan.seconds)
            lines.append([*line, f'{plan.used / GiB:.2f}{fits}', *times, plan.limit, speed])
    return lines


def search(experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology) -> Iterator[str]:
    """What `largest` finds, line by line."""
    for remat, size, plan in largest(experiment, tokenizer, phase, topology):
        if plan is None:
            yield f'model.remat={remat}: not even a row a chip fits'
        else:
            yield (
                f'model.remat={remat}: {size:,} rows of {phase.length} tokens fit ({plan.used / GiB:.2f} GiB a chip), at most '
                f'{human(plan.tokens / plan.seconds)} tokens/s, by {plan.limit}'
            )
