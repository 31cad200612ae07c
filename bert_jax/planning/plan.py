"""Estimate a run on absent chips: memory, collectives and a lower bound (roofline) of the step time.

For TPUs, the estimate comes from the real compiler, as libtpu compiles without a TPU; for GPUs, from formulas.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_jax.core import partitioning
from bert_jax.core.chips import CHIPS, GPUS, TPUS, Chip, GiB
from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import format_count
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.planning import abstract_step
from bert_jax.planning.abstract_step import AbstractStep
from bert_jax.planning.collectives import Collective, sent_bytes
from bert_jax.planning.compilation import OutOfMemory, compile_program
from bert_jax.train.experiment import Experiment
from bert_jax.train.phases import Phase

# Memory that the compiler for TPUs keeps for the system: 258.01 MiB of a v5e chip.
_RESERVED_BYTES = 0.252 * GiB


@dataclasses.dataclass(frozen=True)
class Topology:
    """Kind and number of chips.

    Attributes:
      name: kind and shape, such as 'v5e:4x4' or 'h100:8'.
    """

    name: str

    def __post_init__(self) -> None:
        if self.kind not in CHIPS:
            raise UserError(
                f'Unknown chip {self.kind!r} in the topology {self.name!r}: {did_you_mean(self.kind, CHIPS)}'
            )
        if not re.fullmatch(r'\d+(x\d+)*', self.name.partition(':')[2]) or not self.num_chips:
            raise UserError(
                f'{self.name!r} lacks the number of chips. Write it as in v5e:4x4, v5p:4x4x4 or h100:8.'
            )
        if self.name.count('x', self.name.index(':')) + 1 != self.chip.torus_dimensions:
            example = 'x'.join('4' * self.chip.torus_dimensions)
            raise UserError(
                f'{self.name!r} has the wrong number of dimensions for {self.kind}. Write it as in {self.kind}:{example}.'
            )

    @property
    def kind(self) -> str:
        """Kind of chip, a key of `chips.CHIPS` such as 'v5e'."""
        return self.name.partition(':')[0]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def num_chips(self) -> int:
        return math.prod(map(int, self.name.partition(':')[2].split('x')))

    @property
    def memory(self) -> float:
        """Bytes of each chip that a program can use."""
        return self.chip.memory - (_RESERVED_BYTES if self.kind in TPUS else 0)

    @property
    def num_devices(self) -> int:
        """Number of JAX devices."""
        return self.num_chips * self.chip.devices_per_chip

    def devices(self) -> list[Any]:
        """Return stand-ins for the devices of an absent TPU, for which the compiler can compile.

        Raises:
          UserError: if libtpu is not installed, or does not know the topology.
        """
        environment = {
            # libtpu looks for these on a TPU VM; the values do not depend on the topology.
            'TPU_SKIP_MDS_QUERY': '1',
            'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
            'TPU_WORKER_HOSTNAMES': 'localhost',
            'TPU_WORKER_ID': '0',
            'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # allows several plans at once, as none occupies a TPU
        }
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        from jax.experimental.topologies import get_topology_desc

        # On TPU VMs, the two cores of a v4 chip are one device.
        options = {'chip_config_name': 'megacore'} if self.kind == 'v4' else {}
        try:
            return get_topology_desc(platform='tpu', topology_name=self.name, **options).devices
        except Exception as e:
            text = str(e)
            if 'not installed' in text:
                raise UserError(
                    'The TPU compiler is not installed. Run `pip install "jax[tpu]"` in a separate environment and plan there.'
                ) from e
            raise UserError(
                f'The TPU compiler rejects the topology {self.name!r} ({text.splitlines()[0][:200]}). Choose a shape that exists.'
            ) from e


def parse_topologies(text: str) -> list[Topology]:
    """Parse a comma-separated list of topologies, ignoring case."""
    parsed = [Topology(name.strip().lower()) for name in text.split(',') if name.strip()]
    if not parsed:
        raise UserError(
            '--topology is empty. Pass one topology such as v5e:4x4, or several separated by commas.'
        )
    return parsed


@dataclasses.dataclass(frozen=True)
class Plan:
    """Resources of one train step on a topology.

    Attributes:
      topology: kind and number of chips.
      tokens: number of tokens in the global batch.
      memory: bytes per chip by use, such as 'parameters'.
      flops: FLOP per chip; the larger of the model's and the compiler's counts.
      traffic: bytes read and written per chip, if each buffer is written and read once.
      collectives: collectives of the step.
    """

    topology: Topology
    tokens: int
    memory: Mapping[str, float]
    flops: float
    traffic: float
    collectives: Sequence[Collective]

    @property
    def memory_used(self) -> float:
        """Total bytes per chip."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether the step fits into the memory of a chip."""
        return self.memory_used <= self.topology.memory

    @property
    def bounds(self) -> dict[str, float]:
        """Minimum seconds by resource: compute, memory bandwidth and links."""
        chip = self.topology.chip
        sent = sum(c.sent_bytes for c in self.collectives)
        return {
            'compute': self.flops / chip.flops,
            'memory': self.traffic / chip.memory_bandwidth,
            'links': sent / chip.link_bandwidth,
        }

    @property
    def exposed_seconds(self) -> float:
        """Seconds of communication without overlapping computation; 0 if there is no schedule."""
        exposed = (c.exposed_bytes for c in self.collectives if not math.isnan(c.exposed_bytes))
        return sum(exposed) / self.topology.chip.link_bandwidth

    @property
    def overlapped_seconds(self) -> float:
        """Minimum seconds of a step, if all resources work in parallel at peak speed (roofline, Williams et al. 2009)."""
        return max(self.bounds.values())

    @property
    def seconds(self) -> float:
        """Minimum seconds of a step: as `overlapped_seconds`, but computation waits for the exposed communication."""
        bounds = self.bounds
        return max(max(bounds['compute'], bounds['memory']) + self.exposed_seconds, bounds['links'])

    @property
    def bottleneck(self) -> str:
        """Resource with the largest bound: 'compute', 'memory' or 'links'."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    def report(self) -> list[str]:
        """Describe memory, compute, collectives and step time in lines of text."""
        memory = ', '.join(f'{name} {value / GiB:.2f}' for name, value in self.memory.items())
        verdict = 'fits' if self.fits else 'DOES NOT FIT'
        lines = [
            f'memory per chip: {self.memory_used / GiB:.2f} of {self.topology.memory / GiB:.4g} GiB, {verdict} ({memory})',
            f'compute per chip: {self.flops / 1e12:.3g} TFLOP',
        ]
        for c in self.collectives:
            is_scheduled = not math.isnan(c.exposed_bytes)
            exposed = f', {c.exposed_bytes / 1e6:,.0f} MB of them without overlapping computation'
            lines.append(
                f'{c.kind}: {c.num_operations:,} per step, {c.data_bytes / 1e6:,.0f} MB, {c.sent_bytes / 1e6:,.0f} MB sent '
                'by each chip' + exposed * is_scheduled
            )
        if not self.collectives:
            lines.append('no collectives')
        bounds = ', '.join(f'{name} {1e3 * value:.2f} ms' for name, value in self.bounds.items())
        if seconds := self.exposed_seconds:
            bounds += f', of it {1e3 * seconds:.2f} ms without overlapping computation'
            bounds += f'; {1e3 * self.overlapped_seconds:.2f} ms if all of it overlapped'
        lines.append(
            f'a step takes at least {1e3 * self.seconds:.2f} ms, limited by {self.bottleneck} ({bounds}): '
            f'at most {format_count(self.tokens / self.seconds)} tokens/s'
        )
        return lines


class TooLarge(UserError):
    """The step does not fit into the memory of a chip, according to the compiler."""


def plan_step(
    experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology, in_full: bool = False
) -> Plan:
    """Plan the train step of a phase.

    Args:
      experiment: config from `abstract_step.complete_experiment`.
      tokenizer: tokenizer from `abstract_step.complete_experiment`.
      phase: row length and global batch size.
      topology: kind and number of chips.
      in_full: whether to compile for a TPU in full, see `compilation`.

    Raises:
      TooLarge: if the step does not fit on a TPU; for GPUs see `Plan.fits`.
      UserError: if the mesh or the batch does not divide over the chips, or the TPU compiler is not installed.
    """
    if topology.kind in GPUS:
        return _plan_by_formula(experiment, tokenizer, phase, topology)
    step = _make_tpu_step(experiment, tokenizer, phase, topology)
    lower = functools.partial(_lower, experiment, tokenizer, phase, topology)
    too_large = f'{phase.batch_size} rows of {phase.length} tokens do not fit'
    advice = 'Set train.batch_size lower, train.accumulation_steps higher, model.remat=full or mesh.strategy=fsdp, or use more chips.'
    try:
        report = compile_program(lower, topology.name, topology.num_devices, in_full)
    except OutOfMemory as e:
        raise TooLarge(f'{too_large}' + (f' ({e})' if str(e) else '') + f'. {advice}') from e
    devices = topology.chip.devices_per_chip
    parameters, optimizer = step.state_bytes
    memory = {
        'parameters': parameters,
        'optimizer': optimizer,
        'batch': report.argument_bytes - parameters - optimizer + report.output_bytes,
        'activations and gradients': report.temporary_bytes,
        'program' if in_full else 'program, estimated': report.code_bytes,
    }
    traffic = report.argument_bytes + report.output_bytes + report.donated_bytes + 2 * report.temporary_bytes
    plan = Plan(
        topology,
        math.prod(step.batch['tokens'].shape),
        {name: devices * value for name, value in memory.items()},
        devices * max(step.flops / topology.num_devices, report.flops),
        devices * traffic,
        report.collectives,
    )
    if not plan.fits:  # the compiler says so only after it has generated the code
        need = f'each chip would need {plan.memory_used / GiB:.2f} of {topology.memory / GiB:.2f} GiB'
        raise TooLarge(f'{too_large} ({need}). {advice}')
    return plan


def _make_tpu_step(
    experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology
) -> AbstractStep:
    partitioner = partitioning.make(experiment.mesh, topology.devices())
    return abstract_step.make_step(experiment, tokenizer, phase, partitioner)


def _lower(experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology) -> Any:
    return _make_tpu_step(experiment, tokenizer, phase, topology).lower()


# Bytes per token and layer that a block saves for its backward pass in half precision, by model.remat, in units of the
# model's width: those that every chip holds, and those that tensor parallelism splits (Korthikanti et al. 2022, equation 2,
# without attention scores, which fused attention does not save).
_SAVED_ACTIVATIONS = {'none': (10, 24), 'dots': (4, 14), 'full': (2, 0)}


def _plan_by_formula(experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology) -> Plan:
    """Plan the train step on GPUs by formula.

    Collectives follow Rajbhandari et al. 2020 (section 7) for data parallelism and sharded parameters, and
    Shoeybi et al. 2019 (section 3) for tensor parallelism. All GPUs count as one node, so links between nodes are
    not modeled. The assumption is that collectives reduce within each node first, and so send little between
    nodes.
    """
    if not isinstance(experiment.data, TextConfig):
        raise UserError(
            'The plan of a fine-tuning needs the TPU compiler. Set --topology to a TPU, such as v5e:2x2.'
        )
    partitioner = partitioning.make_abstract(experiment.mesh, topology.num_devices)
    step = abstract_step.make_step(experiment, tokenizer, phase, partitioner)
    data, fsdp, tensor = partitioner.mesh.axis_sizes
    tensor = (
        tensor if experiment.mesh.strategy in ('tp', 'fsdp_tp') else 1
    )  # others split nothing over this axis
    (parameters, optimizer), gradients = step.state_bytes, step.gradient_bytes
    model, accumulation_steps = experiment.model, experiment.train.accumulation_steps
    rows = phase.batch_size // (data * fsdp) // accumulation_steps
    itemsize = 2 if model.dtype == 'bfloat16' else 4
    tokens = rows * phase.length
    architectures = experiment.make_task(tokenizer).architectures(model)
    layers = sum(m.num_blocks for m in architectures)
    widths = sum(m.num_blocks * m.width for m in architectures)  # of all layers
    replicated, split = _SAVED_ACTIVATIONS[model.remat]
    activations = tokens * widths * (replicated + split / tensor) * itemsize / 2
    positions = step.batch['weights'].shape[1]
    positions = min(positions, getattr(experiment.task, 'loss_chunk', 0) or positions)
    logits = 2 * 4 * rows * positions * model.padded_vocab / tensor  # and their gradients
    all_parameters, all_gradients = (
        4 * n / tensor for n in (step.layout.num_params, step.layout.num_trained_params)
    )
    messages = []

    def add(kind: str, count: int, size: float, group: int) -> None:
        """Add collectives with `size` bytes in total over groups of `group` chips."""
        if group > 1:
            messages.append(Collective(kind, count, size, sent_bytes(kind, size, group), math.nan))

    sharded = fsdp if parameters < all_parameters else 1
    add('all-gather', 2, 2 * all_parameters * itemsize / 4, sharded)
    add('reduce-scatter', 1, all_gradients, sharded)
    add('all-reduce', 1, all_gradients / sharded, data * fsdp // sharded)
    size = 4 * accumulation_steps * tokens * widths * itemsize
    add('all-reduce', 4 * layers * accumulation_steps, size, tensor)
    memory = {
        'parameters': parameters,
        'optimizer': optimizer,
        'gradients': gradients,
        'activations': activations,
        'vocabulary logits': logits,
    }
    traffic = parameters + 3 * gradients + 2 * optimizer + 2 * (activations + logits) * accumulation_steps
    recomputation = 4 / 3 if model.remat == 'full' else 1  # repeats the forward pass
    flops = recomputation * step.flops / topology.num_chips
    return Plan(topology, phase.batch_size * phase.length, memory, flops, traffic, messages)


def find_largest_batches(
    experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology
) -> Iterator[tuple[str, int, Plan | None]]:
    """Find the largest global batch that fits for each value of model.remat, from least to most recomputation.

    The candidates have 1, 2, 4, ... rows per batch shard and accumulation step; the search starts near the
    batch size of the phase.

    Yields:
      model.remat, the batch size and its plan; 0 and None instead if not even the smallest batch fits.
    """
    partitioner = partitioning.make_abstract(experiment.mesh, topology.num_devices)
    unit = partitioner.num_batch_shards * experiment.train.accumulation_steps
    size = unit
    while 2 * size <= phase.batch_size:  # start near the configured size
        size *= 2
    for remat in ('none', 'dots', 'full'):
        candidate = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, remat=remat))

        def plan_if_fits(size: int, candidate: Experiment = candidate) -> Plan | None:
            with contextlib.suppress(TooLarge):
                plan = plan_step(candidate, tokenizer, dataclasses.replace(phase, batch_size=size), topology)
                return plan if plan.fits else None
            return None

        best = plan_if_fits(size)
        while best is None and size > unit:
            size //= 2
            best = plan_if_fits(size)
        while best is not None and (larger := plan_if_fits(2 * size)) is not None:
            size, best = 2 * size, larger
        yield remat, size if best else 0, best


def describe_run(
    experiment: Experiment,
    tokenizer: Tokenizer,
    phases: Sequence[Phase],
    topology: Topology,
    price: float = 0.0,
    lists_parameters: bool = False,
    in_full: bool = False,
) -> Iterator[str]:
    """Describe the plan of a run, phase by phase.

    Args:
      experiment: config from `abstract_step.complete_experiment`.
      tokenizer: tokenizer from `abstract_step.complete_experiment`.
      phases: phases of the run.
      topology: kind and number of chips.
      price: price of a chip-hour, in any currency; 0 omits the cost.
      lists_parameters: whether to list all parameters with their shapes and shardings.
      in_full: whether to compile for a TPU in full, see `compilation`.

    Yields:
      Lines of text: parameters, a plan per phase, hours and cost.
    """
    if topology.kind in TPUS:
        topology.devices()  # report an unknown TPU before a batch that does not divide over it
    method = 'ESTIMATED BY FORMULA' if topology.kind in GPUS else 'from the TPU compiler'
    yield f'{topology.name}, {topology.num_chips} chips, mesh.strategy={experiment.mesh.strategy}, {method}'
    if lists_parameters:
        partitioner = partitioning.make_abstract(experiment.mesh, topology.num_devices)
        layout = abstract_step.make_step(experiment, tokenizer, phases[0], partitioner).layout
        yield f'{layout.format_parameters()}\n  the optimizer state is sharded in the same way'
    seconds = 0.0
    for phase in phases:
        steps = phase.stop - phase.start
        rows = 'texts' if experiment.train.packing == 'on' else f'rows of {phase.length} tokens'
        yield ', '.join([f'{steps:,} steps of {phase.batch_size:,} {rows}', *phase.settings])
        plan = plan_step(experiment, tokenizer, phase, topology, in_full)
        yield from (f'  {line}' for line in plan.report())
        seconds += steps * plan.seconds
    for name, factor in (('at peak speed', 1), ('at half of peak speed', 2)):
        hours = factor * seconds / 3600
        time = f'{hours:,.1f} hours' if hours >= 1 else f'{60 * hours:.1f} minutes'
        chip_hours = hours * topology.num_chips
        cost = f', {_format_amount(price * chip_hours)} at {price:g} per chip-hour' if price else ''
        yield f'full run {name}: {time}, {_format_amount(chip_hours)} chip-hours{cost}'


def _format_amount(amount: float) -> str:
    return f'{amount:,.0f}' if amount >= 10 else f'{amount:.2g}'


def compare_topologies(
    experiment: Experiment,
    tokenizer: Tokenizer,
    phase: Phase,
    topologies: Sequence[Topology],
    meshes: Sequence[MeshConfig],
) -> list[list[str]]:
    """Plan one phase on several topologies and meshes, with the same global batch.

    Returns:
      Rows of the table, header first.
    """
    memory_and_bounds = ['GiB per chip', 'compute ms', 'memory ms', 'links ms', 'exposed ms', 'step ms']
    lines = [['topology', 'strategy', 'chips', *memory_and_bounds, 'bottleneck', 'tokens/s']]
    for topology in topologies:
        for mesh in meshes:
            line = [topology.name, mesh.strategy, str(topology.num_chips)]
            logging.info('planning the train step on %s with mesh.strategy=%s', topology.name, mesh.strategy)
            try:
                plan = plan_step(dataclasses.replace(experiment, mesh=mesh), tokenizer, phase, topology)
            except UserError as e:
                reason = 'does not fit' if isinstance(e, TooLarge) else str(e)
                lines.append([*line, *[''] * 7, reason])
                continue
            fits = '' if plan.fits else ', does not fit'
            times = [*plan.bounds.values(), plan.exposed_seconds, plan.seconds]
            bounds = [f'{1e3 * value:.2f}' for value in times]
            speed = format_count(plan.tokens / plan.seconds)
            lines.append([*line, f'{plan.memory_used / GiB:.2f}{fits}', *bounds, plan.bottleneck, speed])
    return lines


def describe_largest_batches(
    experiment: Experiment, tokenizer: Tokenizer, phase: Phase, topology: Topology
) -> Iterator[str]:
    """Yield a line of text for each result of `find_largest_batches`."""
    for remat, size, plan in find_largest_batches(experiment, tokenizer, phase, topology):
        if plan is None:
            yield f'model.remat={remat}: not even the smallest batch fits'
        else:
            yield (
                f'model.remat={remat}: {size:,} rows of {phase.length} tokens fit ({plan.memory_used / GiB:.2f} GiB per chip), at most '
                f'{format_count(plan.tokens / plan.seconds)} tokens/s, limited by {plan.bottleneck}'
            )
