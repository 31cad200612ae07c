"""Measure the largest throughput of a BERT train step on one accelerator, with PyTorch on the same device.

A step is the forward and backward pass of masked language modeling in bfloat16, clipping and AdamW. Only the predicted
positions go through the vocabulary head. The batch is doubled until it does not fit into memory. Each timing runs in its
own process. PyTorch is timed in two ways, both with models of Hugging Face transformers:

* 'transformers' follows the documentation of transformers.
* 'tuned PyTorch' adds what an expert would: see `throughput_pytorch`.
"""

import dataclasses
import itertools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bert_jax.benchmarks import masked_rows, processes, throughput_jax, trace
from bert_jax.core import cli
from bert_jax.core.chips import GiB
from bert_jax.core.errors import UserError

Result = dict[str, Any]
# Module and timing function of each program.
PROGRAMS = {
    'bert_jax': ('throughput_jax', 'time_bert_jax'),
    'tuned PyTorch': ('throughput_pytorch', 'time_tuned_pytorch'),
    'transformers': ('throughput_pytorch', 'time_transformers'),
}
_COLUMNS = ['size', 'tokens', 'rows', 'dropout', 'program', 'batch', 'step', 'speed', 'MFU', 'memory', 'relative']  # fmt: skip
_UNSUPPORTED = [('transformers', 'packed')]  # programs and kinds of rows
# Number of tokens in the first batch, by size, on an accelerator and on a CPU.
_FIRST_TOKENS = {'base': 2**16, 'large': 2**15}
_FIRST_TOKENS_SMALLER, _FIRST_TOKENS_CPU = 2**17, 2**10
_TAKES_NO_MEMORY = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
_MEMORY_OF_JAX = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.92'}  # JAX takes 75 % of a GPU by default


class Device(NamedTuple):
    """A device to measure on.

    Attributes:
      platform: 'cpu', 'gpu' or 'tpu'.
      kind: name of the chip.
      peak_flops: peak FLOP/s, as in `runtime.peak_flops`.
      environment: environment variables of the processes that use it.
      num_devices: number of such devices; only the first is used.
    """

    platform: str
    kind: str
    peak_flops: float
    environment: Mapping[str, str]
    num_devices: int = 1

    @property
    def dtype(self) -> str:
        """Default type of the activations."""
        return 'float32' if self.platform == 'cpu' else 'bfloat16'


@dataclasses.dataclass(frozen=True)
class Case:
    """One timing.

    Attributes:
      program: key of `PROGRAMS`.
      size: size of BERT.
      length: number of tokens in a row.
      kind: kind of rows, see `masked_rows.make_batch`.
      dropout: dropout rate of hidden states; that of attention probabilities is 0.
      rows: number of rows in the batch.
      platform: platform of the device.
      dtype: type of the activations, of PyTorch as well.
      model: further settings of the model of bert_jax.
      seconds: approximate duration of the timing.
      profile: whether to profile bert_jax.
    """

    program: str
    size: str
    length: int
    kind: str
    dropout: float
    rows: int
    platform: str
    dtype: str
    model: Mapping[str, Any]
    seconds: float
    profile: bool = False


def find_device(name: str) -> Device:
    """Find the device to measure on, without taking its memory in this process.

    Args:
      name: platform, 'cpu', 'gpu' or 'tpu'; 'auto' is the default platform of JAX.

    Raises:
      UserError: if JAX does not find such a device.
    """
    environment = {'JAX_PLATFORMS': 'cpu' if name == 'cpu' else os.environ.get('JAX_PLATFORMS', '')}
    try:
        found = processes.call(
            throughput_jax.__name__, 'describe_device', {}, environment | _TAKES_NO_MEMORY
        )[-1]
    except processes.Failure as e:
        raise UserError(f'JAX finds no device ({e.reason}). Install JAX for it, or set --device=cpu.') from e
    if name not in ('auto', found['platform']):
        raise UserError(
            f'--device={name}, but JAX only finds {found["kind"]!r} ({found["platform"]}). '
            f'Install JAX for {name.upper()}s, or set --device={found["platform"]}.'
        )
    if found['platform'] == 'gpu':
        environment |= {k: v for k, v in _MEMORY_OF_JAX.items() if k not in os.environ}
    return Device(found['platform'], found['kind'], found['peak_flops'], environment, found['count'])


def measure(
    device: Device,
    sizes: Sequence[str],
    lengths: Sequence[int],
    kinds: Sequence[str],
    programs: Sequence[str],
    out: pathlib.Path | None,
    *,
    dropout: float = 0.0,
    rows: int = 0,
    doublings: int = 3,
    model: Mapping[str, Any] | None = None,
    seconds: float = 8,
    limit: float = 300,
    profile: bool = False,
) -> list[Result]:
    """Measure all combinations, and print each result and a table.

    Args:
      device: device to measure on.
      sizes: sizes of BERT.
      lengths: numbers of tokens in a row.
      kinds: kinds of rows.
      programs: keys of `PROGRAMS`.
      out: file of JSON lines, to which each result is appended at once; the table includes what it holds. None writes
        no file.
      dropout: dropout rate of hidden states.
      rows: number of rows in the first batch; 0 depends on size and length.
      doublings: number of times that the batch is doubled at most.
      model: further settings of the model of bert_jax.
      seconds: approximate duration of a timing.
      limit: seconds after which the process of a timing is killed.
      profile: whether to profile the steps of bert_jax.

    Returns:
      The results, see `time_case`.

    Raises:
      UserError: if no program could be timed.
    """
    earlier = [] if out is None else read_results(out)
    results: list[Result] = []
    model = dict(model or {})
    dtype = model.get('dtype', device.dtype)

    def run(case: Case) -> Result:
        result = time_case(case, device, limit)
        if out is not None:
            append(out, result)
        print(format_result(result), flush=True)
        results.append(result)
        return result

    for size, length, kind, program in itertools.product(sizes, lengths, kinds, programs):
        if (program, kind) in _UNSUPPORTED:
            continue
        first = rows or first_rows(size, length, device.platform)
        case = Case(
            program, size, length, kind, dropout, first, device.platform, dtype, model, seconds, profile
        )
        search_batch(lambda rows, case=case: run(dataclasses.replace(case, rows=rows)), first, doublings)  # type: ignore[misc]
    print(format_table([*earlier, *results]), flush=True)
    if all('error' in result for result in results):
        raise UserError('No program could be timed. See the reasons above.')
    return results


def append(file: pathlib.Path, result: Result) -> None:
    """Append a result to a file of JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open('a') as stream:
        stream.write(json.dumps(result) + '\n')


def read_results(file: pathlib.Path) -> list[Result]:
    """Read the results of earlier calls, without those of other benchmarks; empty if there is no file."""
    if not file.exists():
        return []
    try:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    except json.JSONDecodeError as e:
        raise UserError(f'{str(file)!r} does not consist of JSON lines. Choose another --out.') from e
    return [line for line in lines if 'program' in line]


def first_rows(size: str, length: int, platform: str) -> int:
    """Return the number of rows in the first batch."""
    tokens = _FIRST_TOKENS_CPU if platform == 'cpu' else _FIRST_TOKENS.get(size, _FIRST_TOKENS_SMALLER)
    return max(1, tokens // length)


def search_batch(run: Callable[[int], Result], first: int, doublings: int) -> None:
    """Time batches of increasing size until one does not fit.

    Args:
      run: times a batch with a number of rows. Its result has the key `error` if that failed, and `out_of_memory`.
      first: number of rows in the first batch. If it does not fit, it is halved until it does.
      doublings: number of times that the batch is doubled at most.
    """
    rows = first
    result = run(rows)
    while result.get('out_of_memory') and rows > 1:
        rows, doublings = rows // 2, 0
        result = run(rows)
    for _ in range(doublings):
        if 'error' in result:
            return
        rows *= 2
        result = run(rows)


def time_case(case: Case, device: Device, limit: float) -> Result:
    """Time one case in its own process.

    Args:
      case: what to time.
      device: device to measure on.
      limit: seconds after which the process is killed.

    Returns:
      The fields of the case, the results of the timing function, `tokens`, the real tokens of the batch,
      `tokens_per_second` and `mfu`, the model FLOP utilization of bert_jax's count for all programs. If the timing failed:
      `error` and `out_of_memory`.
    """
    module, function = PROGRAMS[case.program]
    fields: Result = {**dataclasses.asdict(case), 'device': device.kind}
    batch = masked_rows.make_batch(case.kind, case.rows, case.length)
    config = throughput_jax.model_config(fields)
    work = masked_rows.count_work(masked_rows.make_task(case.kind), config, batch)
    note: Result = {}
    try:
        timed = processes.call(
            f'{__package__}.{module}', function, {'case': fields}, device.environment, limit
        )
    except processes.Failure as e:
        timed = e.results
        note = {'error': e.reason, 'out_of_memory': e.is_out_of_memory}
        if not e.is_out_of_memory:
            logging.warning('%s', e.output)
    if not timed:
        return fields | note
    if note:  # a later part failed, such as torch.compile
        note = {'note': note['error']}
    seconds = timed[-1]['step_seconds']
    speed = {'tokens_per_second': work.tokens / seconds, 'mfu': work.flops / seconds / device.peak_flops}
    return fields | timed[-1] | note | {'tokens': work.tokens, **speed}


def format_result(result: Result) -> str:
    """Format one result as a line, and its profile as further ones."""
    where = (
        f'{result["size"]} {result["length"]} {result["kind"]}, {result["rows"]} rows, {result["program"]}'
    )
    if result['dropout']:
        where += f', dropout {result["dropout"]:g}'
    if 'error' in result:
        return f'{where}: {"out of memory" if result["out_of_memory"] else result["error"]}'
    line = f'{where}: ' + ', '.join(cell for cell in _cells(result) if cell != '—')
    for key in ('variant', 'note'):
        if result.get(key):
            line += f' ({result[key]})'
    if result.get('operations'):
        line += f'\n{trace.format_summary(result["operations"])}'
    return line


def _label(result: Result) -> str:
    """Return the name of the program and, for bert_jax, the settings of its model."""
    settings = result['model'] if result['program'] == 'bert_jax' else {}
    return ' '.join([result['program'], *(f'{key}={value}' for key, value in settings.items())])


def _cells(result: Result) -> list[str]:
    memory, mfu = result.get('peak_memory'), result['mfu']
    return [
        f'{1e3 * result["step_seconds"]:,.1f} ms',
        f'{result["tokens_per_second"]:,.0f} tokens/s',
        f'MFU {mfu:.1%}' if mfu == mfu else '—',
        f'{memory / GiB:.1f} GiB' if memory else '—',
    ]


def format_table(results: Sequence[Result]) -> str:
    """Format the fastest batch of each program as a table, with its speed relative to the fastest of bert_jax."""
    lines = [_COLUMNS]
    for group in _groups(results):
        ours = max((r.get('tokens_per_second', 0) for r in group if r['program'] == 'bert_jax'), default=0)
        for result in group:
            cells = [result['size'], str(result['length']), result['kind'], f'{result["dropout"]:g}']
            cells += [_label(result), str(result['rows'])]
            if 'error' in result:
                cells.append('out of memory' if result['out_of_memory'] else 'failed')
            else:
                relative = f'{result["tokens_per_second"] / ours:.2f}' if ours else '—'
                cells += [*_cells(result), relative]
            lines.append([*cells, *[''] * (len(_COLUMNS) - len(cells))])
    return cli.format_table(lines)


def _groups(results: Sequence[Result]) -> Iterator[list[Result]]:
    """Yield, for each combination in order of appearance, the fastest result of each program, or its failure."""
    best: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        group = best.setdefault(tuple(result[key] for key in ('size', 'length', 'kind', 'dropout')), {})
        label = _label(result)
        if label not in group or result.get('tokens_per_second', 0) > group[label].get(
            'tokens_per_second', 0
        ):
            group[label] = result
    yield from ([*group.values()] for group in best.values())
