"""Compare the speed of bert_jax with that of PyTorch on the same machine.

Each timing runs in its own process, so that the programs share neither threads nor memory, and they alternate, so that a
drift of the machine affects all of them. PyTorch is timed in three ways, all with models of Hugging Face transformers:

* 'transformers' follows the documentation of transformers.
* 'tuned PyTorch' adds what an expert would: it computes only the outputs that the loss needs, uses fused AdamW, groups texts
  by length, generates with a static cache, runs `torch.compile` where that is faster, and keeps freed memory as bert_jax does.
* 'tuned PyTorch, bfloat16' also computes matrix products in bfloat16, which some CPUs have units for. The others compute in
  float32: XLA does not use these units.
"""

import importlib
import importlib.util
import statistics
from collections.abc import Sequence
from typing import Any

from bert_jax.benchmarks import processes
from bert_jax.core.errors import UserError

BFLOAT16 = 'tuned PyTorch, bfloat16'
_KEEPS_MEMORY = {'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '-1'}
# Timing function of each program, its further arguments, and environment variables of its process.
PROGRAMS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    'bert_jax': ('time_bert_jax', {}, {}),
    'tuned PyTorch': ('time_tuned_pytorch', {}, _KEEPS_MEMORY),
    BFLOAT16: ('time_tuned_pytorch', {'dtype': 'bfloat16'}, _KEEPS_MEMORY),
    'transformers': ('time_transformers', {}, {}),
}


def compare(
    sizes: Sequence[str], rounds: int, seconds: float, programs: Sequence[str], kind: str = 'pretraining'
) -> dict[str, Any]:
    """Time the programs alternately for each size, and print a table.

    Args:
      sizes: model sizes, such as 'tiny'.
      rounds: number of timings per program; the median of each result is reported.
      seconds: approximate duration of one timing.
      programs: programs to time, among `PROGRAMS`.
      kind: benchmark, 'pretraining', 'finetuning', 'embedding', 'embedding-training' or 'generation': a module of this package
        with the timing functions of `PROGRAMS`, the known `SIZES`, `RATE`, the name of the result to compare, and `LIBRARY`, the
        name that is printed for 'transformers', unless it is this.

    Returns:
      Results by size and program.
    """
    benchmark: Any = importlib.import_module(_module(kind))
    results: dict[str, Any] = {}
    for size in sizes:
        if size not in benchmark.SIZES:
            raise UserError(f'There is no size {size!r}. Choose from {", ".join(benchmark.SIZES)}.')
        runs: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
        for _ in range(rounds):
            for program in programs:
                runs[program].append(_time_in_process(kind, program, size, seconds))
        results[size] = {
            program: {k: statistics.median(x[k] for x in r) for k in r[0]}
            | {'runs': [x[benchmark.RATE] for x in r]}
            for program, r in runs.items()
        }
        print(_format(size, results[size], benchmark), flush=True)
    return results


def installed_programs(kind: str = 'pretraining') -> list[str]:
    """Return the programs to time by default: bert_jax and, if their packages are installed, those of PyTorch, else a note."""
    needed = ['torch', 'transformers', *(['sentence_transformers'] if kind.startswith('embedding') else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        print(f'{" and ".join(missing)} not installed; timing bert_jax only.')
        return ['bert_jax']
    return [program for program in PROGRAMS if program != BFLOAT16]


def _format(size: str, result: dict[str, Any], benchmark: Any) -> str:
    """Format the results of one size: one line per program, and one for the details of bert_jax."""
    ours, lines = result.get('bert_jax'), []
    names = {'transformers': getattr(benchmark, 'LIBRARY', 'transformers')}
    width = max(len(names.get(program, program)) for program in result)
    for program, timed in result.items():
        rate = timed[benchmark.RATE]
        line = f'{size:6} {names.get(program, program):{width}}  {rate:9,.0f} {benchmark.RATE.partition("_")[0]}/s'
        if 'seconds' in timed:
            line += f'  {1e3 * timed["seconds"]:6.0f} ms'
        if ours and timed is not ours:
            line += f'  {ours[benchmark.RATE] / rate:5.2f} times slower'
        lines.append(line + '  (torch.compile)' * bool(timed.get('compiled')))
    if ours and hasattr(benchmark, 'format_details'):
        lines.append(f'{size:6} {benchmark.format_details(ours)}')
    return '\n'.join(lines)


def _module(kind: str) -> str:
    return f'{__package__}.{kind.replace("-", "_")}'


def _time_in_process(kind: str, program: str, size: str, seconds: float) -> dict[str, float]:
    """Run one timing function in its own process."""
    function, arguments, environment = PROGRAMS[program]
    try:
        return processes.call(
            _module(kind), function, {'size': size, 'seconds': seconds, **arguments}, environment
        )[-1]
    except processes.Failure as e:
        raise UserError(
            f'Timing {program} at size {size} failed ({e.reason}). Correct the cause, or choose another size.'
        ) from e
